"""Hyper-connections and frac-connections: several streams under learned weights.

The carry is ``H [B, L, n, d]``. With ``read [n, r]``, ``mix [n, n]`` and ``write [n]``::

    h  = read^T H        (r rows, laid side by side: the branch's input, r d = D)
    H' = mix^T H + diag(write) f(h)

Hyper-connections carry n = 4 copies of the stream and read one row, ``r = 1``; frac-connections cut
the stream into n = 4 parts and read as many rows, so that nothing becomes wider. The dynamic forms
add ``alpha * tanh(norm(H) W)`` to the weights of each position.

Weights, and their products with the streams, are in float32 at least; the carry's dtype is kept.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.norms import layer_norm, rms_norm
from resnorm_jax.ops.residual import residual
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter

RATE = 4  # n, the streams or parts of the papers' main results
ALPHA = 0.01  # of both papers: how far the dynamic part moves a weight at first
HC = "Zhu et al. 2024 (arXiv 2409.19606)"
Norm = Callable[[jax.Array], jax.Array]
FRAC = "Zhu et al. 2025 (arXiv 2503.14125)"


def open_copies(x: jax.Array, site: Site) -> jax.Array:
    """Return n copies of the stream, ``[B, L, n, D]``."""
    return jnp.broadcast_to(x[..., None, :], (*x.shape[:-1], RATE, x.shape[-1]))


def sum_streams(streams: jax.Array) -> jax.Array:
    """Return the sum of the streams, ``[B, L, D]``."""
    return streams.astype(statistics_dtype(streams)).sum(-2).astype(streams.dtype)


def combine(weights: jax.Array, streams: jax.Array) -> jax.Array:
    """Return ``weights^T H``: row i is the sum over j of ``weights[..., j, i] H[..., j, :]``.

    In full precision on every device: rounded to 8 bits in each layer, even ``mix = I`` would wear
    the streams down.
    """
    return jnp.einsum("...ji,...jd->...id", weights, streams, precision=lax.Precision.HIGHEST)


def update(
    streams: jax.Array, mixed: jax.Array, y: jax.Array, weight: jax.Array, site: Site
) -> jax.Array:
    """Return ``skip_scale * mixed + branch_scale * diag(weight) y`` in the dtype of ``streams``.

    Args:
      streams: the carry ``[B, L, n, d]``.
      mixed: of its shape.
      y: ``[B, L, r d]``, with r either n or 1.
      weight: ``[..., n]``.
      site: of the scales.
    """
    rows = y.astype(mixed.dtype).reshape(*y.shape[:-1], -1, streams.shape[-1])
    written = jnp.broadcast_to(weight[..., None] * rows, mixed.shape)
    scales = {"skip_scale": site.skip_scale, "branch_scale": site.branch_scale}
    return residual(mixed, written, **scales).astype(streams.dtype)


def _weights(
    streams: jax.Array, site: Site, norm: Norm | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return read, mix and write; ``streams`` in the dtype of the weights."""
    p = {name: value.astype(streams.dtype) for name, value in site.parameters.items()}
    read, mix, write = p["read_gate"], p["mix_gate"], p["write_gate"]
    if norm is None:
        return read, mix, write
    flow = jnp.einsum(
        "...jd,dk->...jk", norm(streams), p["kernel"], precision=lax.Precision.HIGHEST
    )
    tilt, rows = jnp.tanh(flow), read.shape[-1]
    of_width = p["alpha"][0] * tilt[..., :-1]
    read, mix = read + of_width[..., :rows], mix + of_width[..., rows:]
    return read, mix, write + p["alpha"][1] * tilt[..., -1]


def _read(streams: jax.Array, site: Site, norm: Norm | None) -> jax.Array:
    wide = streams.astype(statistics_dtype(streams))
    rows = combine(_weights(wide, site, norm)[0], wide)
    return rows.reshape(*streams.shape[:-2], -1).astype(streams.dtype)


def _write(streams: jax.Array, y: jax.Array, site: Site, norm: Norm | None) -> jax.Array:
    wide = streams.astype(statistics_dtype(streams))
    _, mix, write = _weights(wide, site, norm)
    return update(streams, combine(mix, wide), y, write, site)


def _cut(x: jax.Array, site: Site) -> jax.Array:
    if x.shape[-1] % RATE:
        raise ValueError(f"frac-connections cut the width in {RATE}; it is {x.shape[-1]}")
    return x.reshape(*x.shape[:-1], RATE, -1)


def _joined(parts: jax.Array) -> jax.Array:
    return parts.reshape(*parts.shape[:-2], -1)


def one_stream(site: Site, dtype) -> jax.Array:
    """Return ``e_((s - 1) mod n)``: the stream that this sublayer reads at first."""
    return jax.nn.one_hot(jnp.asarray(site.sublayer - 1) % RATE, RATE, dtype=dtype)


def _first_read(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """1 at stream ``(s - 1) mod 4``, counted from 0, else 0."""
    return one_stream(site, dtype)[:, None]


def _identity(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """The identity matrix."""
    return jnp.eye(RATE, dtype=dtype)


def square(site: Site) -> tuple[int, ...]:
    """Shape of a matrix between streams."""
    return (RATE, RATE)


def per_stream(site: Site) -> tuple[int, ...]:
    """Shape of a number for each stream."""
    return (RATE,)


MIX = StreamParameter("mix_gate", square, _identity)
WRITE = StreamParameter("write_gate", per_stream, 1.0)
DYNAMIC_SCALES = StreamParameter("alpha", lambda site: (2,), ALPHA)
STATIC = (StreamParameter("read_gate", lambda site: (RATE, 1), _first_read), MIX, WRITE)
DYNAMIC = (*STATIC, StreamParameter("kernel", lambda site: (site.width, RATE + 2), 0.0))
FRAC_STATIC = (StreamParameter("read_gate", square, _identity), MIX, WRITE)
FRAC_DYNAMIC = (
    *FRAC_STATIC,
    StreamParameter("kernel", lambda site: (site.width // RATE, 2 * RATE + 1), 0.0),
)


def _stream(
    name: str,
    equation: str,
    source: str,
    norm: Norm | None,
    cut: bool,
    *parameters: StreamParameter,
) -> Stream:
    return Stream(
        name,
        equation,
        source,
        partial(_write, norm=norm),
        open=_cut if cut else open_copies,
        read=partial(_read, norm=norm),
        view=_joined if cut else sum_streams,
        parameters=parameters,
    )


# The paper's Algorithm 2 has a layer norm with weights of its own: W would absorb its scale, and it
# has none here. It also scales the output kernels by sqrt(n) at first (section 4), which is left out:
# the text does not say whether up or down, and section 2.3's start is Pre-LN's without.
ROWS = (
    Arrangement(
        name="hyper_connections",
        equation="h = f(LN(sum_j r_j H_j)), H_i = sum_j A_ji H_j + w_i h, 4 streams H, each the "
        "stack's input at first; A [4, 4] I, w [4] 1, r [4] 1 at stream (s - 1) mod 4, counted "
        "from 0, and else 0 at first, all a sublayer's; final LN of the sum of H",
        source=f"{HC}, section 2.1, 2.3 and Algorithm 2",
        norm_before=NORM,
        final_norm=NORM,
        stream=_stream(
            "streams",
            "f reads sum_j r_j H_j; H_i = a sum_j A_ji H_j + b w_i f, 4 streams H, each the "
            "stack's input at first; A (mix_gate) I, w (write_gate) 1, r (read_gate) 1 at stream "
            "(s - 1) mod 4, counted from 0, and else 0 at first; out: sum of H",
            f"{HC}, section 2.1, 2.3 and Algorithm 2",
            None,
            False,
            *STATIC,
        ),
        usual=True,
    ),
    Arrangement(
        name="dynamic_hyper_connections",
        equation="h = f(LN(sum_j r_j H_j)), H_i = sum_j A_ji H_j + w_i h, 4 streams H, each the "
        "stack's input at first, weights of each position: row j of [r, A] is that of a parameter "
        "+ c_1 tanh(P(H_j) W)[first 5], w_j a parameter + c_2 tanh(P(H_j) W)[last], P layer norm "
        "without scale and bias, epsilon 1e-6; W [D, 6] 0, c [2] 0.01, A [4, 4] I, w [4] 1, r [4] "
        "1 at stream (s - 1) mod 4, counted from 0, and else 0 at first; final LN of the sum of H",
        source=f"{HC}, section 2.2, 2.3 and Algorithm 2",
        norm_before=NORM,
        final_norm=NORM,
        stream=_stream(
            "dynamic_streams",
            "as streams, with weights of each position: row j of [r, A] + c_1 tanh(P(H_j) "
            "W)[first 5], w_j + c_2 tanh(P(H_j) W)[last], W (kernel) [D, 6] 0 and c (alpha) [2] "
            "0.01 at first, P layer norm without scale and bias, epsilon 1e-6",
            f"{HC}, section 2.2, 2.3 and Algorithm 2",
            layer_norm,
            False,
            *DYNAMIC,
            DYNAMIC_SCALES,
        ),
    ),
    Arrangement(
        name="frac_connections",
        equation="h = f(LN(the 4 parts sum_j Y_ji H_j, side by side)), H_i = sum_j A_ji H_j + w_i "
        "h_i, H and h cut in 4 parts of D / 4 features; A, Y [4, 4] I and w [4] 1 at first, all a "
        "sublayer's; final LN of the parts side by side",
        source=f"{FRAC}, eq. 6-8, 15 and Algorithm 2",
        norm_before=NORM,
        final_norm=NORM,
        stream=_stream(
            "fractions",
            "f reads the 4 parts sum_j Y_ji H_j side by side; H_i = a sum_j A_ji H_j + b w_i f_i, "
            "H and f cut in 4 parts of D / 4 features; A (mix_gate), Y (read_gate) I and w "
            "(write_gate) 1 at first",
            f"{FRAC}, eq. 6-8, 15 and Algorithm 2",
            None,
            True,
            *FRAC_STATIC,
        ),
    ),
    Arrangement(
        name="dynamic_frac_connections",
        equation="h = f(LN(the 4 parts sum_j Y_ji H_j, side by side)), H_i = sum_j A_ji H_j + w_i "
        "h_i, H and h cut in 4 parts of D / 4 features, weights of each position: row j of [Y, A] "
        "is that of a parameter + c_1 tanh(P(H_j) W)[first 8], w_j a parameter + c_2 tanh(P(H_j) "
        "W)[last], P(z) = z / sqrt(mean(z^2) + 1e-6) over a part; W [D / 4, 9] 0, c [2] 0.01, A, "
        "Y [4, 4] I, w [4] 1 at first; final LN of the parts side by side",
        source=f"{FRAC}, eq. 11-15 and Algorithm 2",
        norm_before=NORM,
        final_norm=NORM,
        stream=_stream(
            "dynamic_fractions",
            "as fractions, with weights of each position: row j of [Y, A] + c_1 tanh(P(H_j) "
            "W)[first 8], w_j + c_2 tanh(P(H_j) W)[last], W (kernel) [D / 4, 9] 0 and c (alpha) "
            "[2] 0.01 at first, P(z) = z / sqrt(mean(z^2) + 1e-6) over a part",
            f"{FRAC}, eq. 11-15 and Algorithm 2",
            rms_norm,
            True,
            *FRAC_DYNAMIC,
            DYNAMIC_SCALES,
        ),
    ),
)
