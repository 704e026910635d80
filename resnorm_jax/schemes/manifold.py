"""Manifold-constrained hyper-connections: several streams, mixed by doubly stochastic matrices.

The carry is ``H [B, L, n, D]``, n = 4 copies of the stream at first. At each position ::

    z  = alpha * (RMS(vec H) W) + b              (one alpha each for pre, post and res)
    h  = sum_j pre_j H_j,                        pre  = sigmoid(z_pre)
    H' = res^T H + post f(h),                    post = 2 sigmoid(z_post),  res = project(z_res)

Rows and columns of ``res`` sum to 1, so that no product of them, over any number of layers, makes
the streams larger. The transpose is that of the authors' code; the paper writes ``res H``. Weights
and their products with the streams are in float32 at least; the carry's dtype is kept.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import permutations
from math import factorial, log

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.norms import rms_norm
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.hyper import (
    ALPHA,
    RATE,
    combine,
    one_stream,
    open_copies,
    sum_streams,
    update,
)
from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter

ITERATIONS = 20  # arXiv 2512.24880, table 5
EPSILON = 1e-6  # of RMS, in Sinkhorn and added to what reads: hc_eps of the authors' code
OFF = -8.0  # logit of all that is not the identity, at first: FFTYYY/mhc-lite
PERMUTATIONS = tuple(permutations(range(RATE)))  # the identity first
MHC = "Xie et al. 2025 (arXiv 2512.24880)"
# What the rows below have in common.
WEIGHTS = (
    "4 streams H, each the stack's input at first; z = c (RMS(vec H) W) + d at each position, its "
    "columns z_p (4), z_q (4), then z_R where there is one, RMS(v) = v / sqrt(mean(v^2) + 1e-6) "
    "over all 4D features, stream by stream, W (kernel), d (bias), c (alpha) one number for each "
    "of z_p, z_q, z_R, 0.01 at first"
)
SINKHORN = (
    "R = Sinkhorn(z_R), z_R 16 numbers, row by row: the softmax of rows plus 1e-6, then columns "
    "over (their sum + 1e-6), then 19 times rows likewise and columns likewise"
)
LITE = (
    "R = sum_k softmax(z_R)_k P_k over all 24 permutations k of 0..3 in the order of "
    "itertools.permutations, P_k 1 at (j, k(j)) and else 0"
)
SINKHORN_FIRST = (
    "W [4D, 24] N(0, 1 / (4D)), d -log 3 for p, 0 for q and for R's diagonal, -8 off it at first"
)
LITE_FIRST = (
    "W [4D, 32] 0, d 1 for p and q of stream (s - 1) mod 4, counted from 0, -1 for those of the "
    "others, 0 for the identity in R and -8 for the others at first"
)
UNMIXED_FIRST = "W [4D, 8] N(0, 1 / (4D)), d -log 3 for p and 0 for q at first"
HEAD_READ = (
    "sum_j r_j H_j, r = sigmoid(c' (RMS(vec H) W') + d') + 1e-6, W' (head_kernel) [4D, 4] N(0, 1 "
    "/ (4D)), d' (head_bias) [4] -log 3, scalar c' (head_alpha) 0.01 at first"
)


def sinkhorn(
    logits: jax.Array, iterations: int = ITERATIONS, epsilon: float = EPSILON
) -> jax.Array:
    """Make square matrices nearly doubly stochastic: rows and columns scaled to sum 1, in turns.

    ``M = softmax(rows) + epsilon``, then columns are divided by their sums, then ``iterations - 1``
    times rows and columns; epsilon is added to each sum. In float32 at least. The
    columns then sum to 1 within 1e-6; so do the rows within 3e-6 for 99 of 100 matrices of logits of
    deviation 1, within 0.02 at deviation 2: the wider the logits, the slower.

    Args:
      logits: ``[..., n, n]``, floating point.
      iterations: at least 1.
      epsilon: keeps every entry, and its gradient, away from 0.

    Returns:
      Array of ``logits``' shape, in float32 or wider.

    Source: arXiv 2512.24880, eq. 8-9, in the order and with the epsilon of deepseek-ai/TileKernels
    tile_kernels/torch/mhc.py.

    >>> import jax.numpy as jnp
    >>> print(sinkhorn(jnp.array([[3.0, 0.0], [1.0, 1.0]])).sum(1).round(4))
    [1. 1.]
    """
    matrix = jax.nn.softmax(logits.astype(statistics_dtype(logits)), axis=-1) + epsilon
    matrix = matrix / (matrix.sum(-2, keepdims=True) + epsilon)

    def both(_: int, m: jax.Array) -> jax.Array:
        m = m / (m.sum(-1, keepdims=True) + epsilon)
        return m / (m.sum(-2, keepdims=True) + epsilon)

    return lax.fori_loop(0, iterations - 1, both, matrix)


def permutation_mix(logits: jax.Array) -> jax.Array:
    """Return the mean of all permutation matrices of 4, weighted by the softmax of ``[..., 24]``.

    Doubly stochastic to rounding, whatever the logits.

    Source: arXiv 2601.05732; FFTYYY/mhc-lite hyper_conn/mhc_lite.py (in the order of
    `itertools.permutations`, the identity first).

    >>> import jax.numpy as jnp
    >>> print(permutation_mix(jnp.zeros(24)).sum(0).round(6))
    [1. 1. 1. 1.]
    """
    weights = jax.nn.softmax(logits.astype(statistics_dtype(logits)), axis=-1)
    matrices = jnp.eye(RATE, dtype=weights.dtype)[jnp.asarray(PERMUTATIONS)]
    return jnp.einsum("...k,kij->...ij", weights, matrices, precision=lax.Precision.HIGHEST)


def _square_mix(logits: jax.Array) -> jax.Array:
    return sinkhorn(logits.reshape(*logits.shape[:-1], RATE, RATE))


def _logits(wide: jax.Array, p: Mapping[str, jax.Array], prefix: str = "") -> jax.Array:
    """Return ``RMS(vec H) W`` before alpha and b."""
    flat = rms_norm(wide.reshape(*wide.shape[:-2], -1), epsilon=EPSILON)
    kernel = p[prefix + "kernel"].astype(wide.dtype)
    return jnp.einsum("...d,dk->...k", flat, kernel, precision=lax.Precision.HIGHEST)


def _part(wide: jax.Array, site: Site, number: int, first: int, last: int | None) -> jax.Array:
    """Return one part of z: columns ``first`` to ``last``, with alpha ``number``."""
    p = site.parameters
    alpha, bias = p["alpha"][number].astype(wide.dtype), p["bias"].astype(wide.dtype)
    return alpha * _logits(wide, p)[..., first:last] + bias[first:last]


def _read(streams: jax.Array, site: Site, floor: float = 0.0) -> jax.Array:
    wide = streams.astype(statistics_dtype(streams))
    pre = jax.nn.sigmoid(_part(wide, site, 0, 0, RATE)) + floor
    return combine(pre[..., None], wide)[..., 0, :].astype(streams.dtype)


def _write(
    streams: jax.Array,
    y: jax.Array,
    site: Site,
    project: Callable[[jax.Array], jax.Array] | None,
    floor: float = 0.0,
) -> jax.Array:
    wide = streams.astype(statistics_dtype(streams))
    post = 2 * jax.nn.sigmoid(_part(wide, site, 1, RATE, 2 * RATE)) + floor
    mixed = wide
    if project is not None:
        mixed = combine(project(_part(wide, site, 2, 2 * RATE, None)), wide)
    return update(streams, mixed, y, post, site)


def _mean(streams: jax.Array) -> jax.Array:
    return streams.astype(statistics_dtype(streams)).mean(-2).astype(streams.dtype)


def _head(streams: jax.Array, site: Site) -> jax.Array:
    """Close with one more read, whose weights are the stack's."""
    wide, p = streams.astype(statistics_dtype(streams)), site.parameters
    alpha, bias = (p[name].astype(wide.dtype) for name in ("head_alpha", "head_bias"))
    pre = jax.nn.sigmoid(alpha * _logits(wide, p, "head_") + bias) + EPSILON
    out = combine(pre[..., None], wide)[..., 0, :].astype(streams.dtype)
    return site.norm("final_norm", out)


def _normal(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """``N(0, 1 / rows)``, rows 4D: logits of deviation alpha, whatever the width."""
    return jax.random.normal(key, shape, dtype) * shape[0] ** -0.5


def _even(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """-log 3 four times, 0 four times, then (of 24) 0 on the diagonal of R and -8 off it.

    So that ``pre = 1 / n``, ``post = 1`` and ``res`` is near I.
    """
    near = jnp.where(jnp.eye(RATE, dtype=bool), 0.0, OFF).ravel()
    bias = jnp.concatenate([jnp.full(RATE, -log(RATE - 1)), jnp.zeros(RATE), near])
    return bias[: shape[0]].astype(dtype)


def _one_each(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """Twice 1 at stream ``(s - 1) mod 4``, from 0, -1 at the others; then 0 and 23 times -8."""
    turn = 2 * one_stream(site, dtype) - 1
    near = jnp.where(jnp.arange(len(PERMUTATIONS)) == 0, 0.0, OFF)
    return jnp.concatenate([turn, turn, near.astype(dtype)])


def _parameters(columns: int, kernel, bias) -> tuple[StreamParameter, ...]:
    scales = 2 if columns == 2 * RATE else 3
    return (
        StreamParameter("kernel", lambda site: (RATE * site.width, columns), kernel),
        StreamParameter("bias", lambda site: (columns,), bias),
        StreamParameter("alpha", lambda site: (scales,), ALPHA),
    )


HEAD = (
    StreamParameter("head_kernel", lambda site: (RATE * site.width, RATE), _normal, "stack"),
    StreamParameter("head_bias", lambda site: (RATE,), -log(RATE - 1), "stack"),
    StreamParameter("head_alpha", lambda site: (), ALPHA, "stack"),
)

ROWS = (
    Arrangement(
        name="mhc",
        equation="H_i = sum_j R_ji H_j + q_i f(LN(sum_j p_j H_j)), p = sigmoid(z_p) + 1e-6, q = 2 "
        f"sigmoid(z_q), {SINKHORN}; {WEIGHTS}; {SINKHORN_FIRST}; final LN of the sum of H",
        source=f"{MHC}, eq. 7-9, table 5; deepseek-ai/TileKernels tile_kernels/torch/mhc.py",
        used_by="DeepSeek-V4, GLM-5-Next",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="sinkhorn_streams",
            equation="f reads sum_j p_j H_j; H_i = a sum_j R_ji H_j + b q_i f, p = sigmoid(z_p) + "
            f"1e-6, q = 2 sigmoid(z_q), {SINKHORN}; {WEIGHTS}; {SINKHORN_FIRST}; out: sum of H",
            source=f"{MHC}, eq. 7-9, table 5; deepseek-ai/TileKernels tile_kernels/torch/mhc.py",
            write=partial(_write, project=_square_mix),
            open=open_copies,
            read=partial(_read, floor=EPSILON),
            view=sum_streams,
            parameters=_parameters(RATE * (RATE + 2), _normal, _even),
        ),
        aliases=("manifold_constrained_hyper_connections",),
    ),
    Arrangement(
        name="mhc_lite",
        equation="H_i = sum_j R_ji H_j + q_i f(LN(sum_j p_j H_j)), p = sigmoid(z_p), q = 2 "
        f"sigmoid(z_q), {LITE}; {WEIGHTS}; {LITE_FIRST}; final LN of the sum of H",
        source="Yang and Gao 2026 (arXiv 2601.05732); FFTYYY/mhc-lite hyper_conn/mhc_lite.py",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="permuted_streams",
            equation="f reads sum_j p_j H_j; H_i = a sum_j R_ji H_j + b q_i f, p = sigmoid(z_p), "
            f"q = 2 sigmoid(z_q), {LITE}; {WEIGHTS}; {LITE_FIRST}; out: sum of H",
            source="Yang and Gao 2026 (arXiv 2601.05732); FFTYYY/mhc-lite hyper_conn/mhc_lite.py",
            write=partial(_write, project=permutation_mix),
            open=open_copies,
            read=_read,
            view=sum_streams,
            parameters=_parameters(2 * RATE + factorial(RATE), 0.0, _one_each),
        ),
    ),
    Arrangement(
        name="unmixed_hyper_connections",
        equation="H_i = H_i + q_i f(LN(sum_j p_j H_j)), p = sigmoid(z_p) + 1e-6, q = 2 "
        f"sigmoid(z_q) + 1e-6; {WEIGHTS}; {UNMIXED_FIRST}; final LN of {HEAD_READ}",
        source="transformers models/hy_v4/modeling_hy_v4.py (HYV4HyperConnection, HYV4HyperHead), "
        f"W and W' there N(0, 0.006^2) at first, after {MHC}",
        used_by="HY-V4",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="unmixed_streams",
            equation="f reads sum_j p_j H_j; H_i = a H_i + b q_i f, p = sigmoid(z_p) + 1e-6, q = "
            f"2 sigmoid(z_q) + 1e-6; {WEIGHTS}; {UNMIXED_FIRST}; out: final norm of {HEAD_READ}",
            source="transformers models/hy_v4/modeling_hy_v4.py (HYV4HyperConnection, "
            f"HYV4HyperHead), after {MHC}",
            write=partial(_write, project=None, floor=EPSILON),
            open=open_copies,
            read=partial(_read, floor=EPSILON),
            close=_head,
            view=_mean,
            parameters=(*_parameters(2 * RATE, _normal, _even), *HEAD),
        ),
        aliases=("hy_v4",),
    ),
)
