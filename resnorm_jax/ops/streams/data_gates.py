"""Streams of one array whose factors are computed from the stream, the branch or a condition."""

from collections.abc import Callable
from math import sqrt

import jax
import jax.numpy as jnp

from resnorm_jax.arrangements import NormSlot
from resnorm_jax.ops.masks import zero_padding
from resnorm_jax.ops.statistics import masked_mean, statistics_dtype
from resnorm_jax.ops.streams.gates import written
from resnorm_jax.ops.streams.single import vector
from resnorm_jax.ops.streams.spec import Site, Stream, StreamParameter

GTRXL = "Parisotto et al. 2019 (arXiv 1910.06764)"
ORTHOGONAL_EPSILON = 1e-6  # BootsofLagrangian/ortho-residual (connect)
KEY_EPSILON = 1e-5  # yifanzhang-pro/deep-delta-learning (ddl_k_eps)
LARGEST_VALUE = 4.0  # the same (ddl_v_sigmoid_scale)
LARGEST_RANK = 64  # transformers models/gemma3n (laurel_rank)


# --- Shapes and first values ---


def _widths(count: int) -> Callable[[Site], tuple[int, ...]]:
    """Shape of a kernel from one width to ``count`` widths."""
    return lambda site: (site.width, count * site.width)


def _column(site: Site) -> tuple[int, ...]:
    return site.width, 1


def _one(site: Site) -> tuple[int, ...]:
    return (1,)


def _rank(site: Site) -> int:
    return min(LARGEST_RANK, max(1, site.width // 4))


def _down(site: Site) -> tuple[int, ...]:
    return site.width, _rank(site)


def _up(site: Site) -> tuple[int, ...]:
    return _rank(site), site.width


def _conditioned(site: Site) -> tuple[int, ...]:
    return (site.width if site.condition is None else site.condition.shape[-1]), 3 * site.width


def _three_vectors(site: Site) -> tuple[int, ...]:
    return (3 * site.width,)


def _by_fan_in(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """Normal with deviation ``1 / sqrt(fan_in)``."""
    return jax.random.normal(key, shape, dtype) / sqrt(shape[0])


def _half_by_fan_in(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    return 0.5 * _by_fan_in(key, shape, dtype, site)


# --- Gates of the stream and the branch ---


def _highway(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    transform = jax.nn.sigmoid(x @ p["kernel"] + p["bias"])
    return transform * y + (1 - transform) * x


def _input(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return jax.nn.sigmoid(x @ site.parameters["kernel"]) * x + jax.nn.relu(y)


def _output(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    return x + jax.nn.sigmoid(x @ p["kernel"] - p["bias"]) * jax.nn.relu(y)


def _sig_tanh(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    gate, value = jnp.split(jax.nn.relu(y) @ p["kernel"], 2, -1)
    return x + jax.nn.sigmoid(gate - p["bias"]) * jnp.tanh(value)


def _gru(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    y_reset, y_update, y_new = jnp.split(jax.nn.relu(y) @ p["branch_kernel"], 3, -1)
    x_reset, x_update = jnp.split(x @ p["skip_kernel"], 2, -1)
    reset = jax.nn.sigmoid(y_reset + x_reset)
    update = jax.nn.sigmoid(y_update + x_update - p["bias"])
    new = jnp.tanh(y_new + (reset * x) @ p["candidate_kernel"])
    return (1 - update) * x + update * new


# --- Linear maps of the stream ---


def _low_rank(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return x + y + x @ site.parameters["down_kernel"] @ site.parameters["up_kernel"]


def _orthogonal(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    # Token by token: x-transformers 2.31.10 projects over all tokens of a row at once, padding too.
    along = (x * y).sum(-1, keepdims=True) / ((x * x).sum(-1, keepdims=True) + ORTHOGONAL_EPSILON)
    return x + y - along * x


def _delta(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    p = site.parameters
    # Epsilon inside the root: finite gradients where the branch is zero.
    key = y / jnp.sqrt((y * y).sum(-1, keepdims=True) + KEY_EPSILON**2)
    rate = 2 * jax.nn.sigmoid(site.norm("read_norm", x) @ p["gate_kernel"] + p["gate_bias"])
    value = LARGEST_VALUE * jax.nn.sigmoid(x @ p["value_kernel"] + p["value_bias"])
    return x + rate * (value - (key * x).sum(-1, keepdims=True)) * key


def _normed_read(x: jax.Array, site: Site) -> jax.Array:
    return site.norm("read_norm", x.astype(statistics_dtype(x))).astype(x.dtype)


def _split_mean(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    mask = None if site.mask is None else site.mask[..., None]
    x_mean, y_mean = (masked_mean(zero_padding(z, site.mask), mask, (1,)) for z in (x, y))
    p = site.parameters
    return x + p["scale"] * (y - y_mean) + p["alpha"] * (y_mean - x_mean)


# --- Gates of a condition ---


def _modulation(site: Site, dtype) -> list[jax.Array]:
    """Shift, scale and gate ``[B, 1, D]`` of the condition; of a zero one where there is none."""
    kernel, bias = (site.parameters[f"modulation_{n}"].astype(dtype) for n in ("kernel", "bias"))
    given = site.condition
    out = bias if given is None else jax.nn.silu(given.astype(dtype)) @ kernel + bias
    return jnp.split(out[..., None, :], 3, -1)


def _modulated_read(x: jax.Array, site: Site) -> jax.Array:
    wide = statistics_dtype(x)
    shift, scale, _ = _modulation(site, wide)
    return (site.norm("read_norm", x.astype(wide)) * (1 + scale) + shift).astype(x.dtype)


def _modulated(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    return x + _modulation(site, x.dtype)[2] * y


def _kernel(name: str, shape, init=_by_fan_in) -> StreamParameter:
    return StreamParameter(name, shape, init)


ROWS = (
    Stream(
        "carry_gate",
        "T b f + (1 - T) a x, T = sigmoid(W a x + c), c -3 at first",
        "Srivastava et al. 2015 (arXiv 1505.00387): a negative bias; -3 is ours",
        written(_highway),
        parameters=(_kernel("kernel", _widths(1)), StreamParameter("bias", vector, -3.0)),
    ),
    Stream(
        "input_gate",
        "sigmoid(W a x) a x + relu(b f)",
        GTRXL,
        written(_input),
        parameters=(_kernel("kernel", _widths(1)),),
    ),
    Stream(
        "output_gate",
        "a x + sigmoid(W a x - c) relu(b f), c 2 at first",
        GTRXL,
        written(_output),
        parameters=(_kernel("kernel", _widths(1)), StreamParameter("bias", vector, 2.0)),
    ),
    Stream(
        "sig_tanh_gate",
        "a x + sigmoid(W y - c) tanh(U y), y = relu(b f), c 2 at first",
        GTRXL,
        written(_sig_tanh),
        parameters=(_kernel("kernel", _widths(2)), StreamParameter("bias", vector, 2.0)),
    ),
    Stream(
        "gru_gate",
        "(1 - z) x + z tanh(W_g y + U_g (r x)), y = relu(f), r = sigmoid(W_r y + U_r x), "
        "z = sigmoid(W_z y + U_z x - c), c 2 at first",
        GTRXL,
        written(_gru),
        parameters=(
            _kernel("branch_kernel", _widths(3)),
            _kernel("skip_kernel", _widths(2)),
            _kernel("candidate_kernel", _widths(1)),
            StreamParameter("bias", vector, 2.0),
        ),
    ),
    Stream(
        "low_rank_skip",
        "a x + b f + B A a x, rank at most 64 and D / 4, B 0 at first",
        "Menghani et al. 2024 (arXiv 2411.07501); the rank is Gemma 3n's",
        written(_low_rank),
        parameters=(_kernel("down_kernel", _down), _kernel("up_kernel", _up, 0.0)),
    ),
    Stream(
        "orthogonal_sum",
        "a x + b f - (<x, f> / (<x, x> + 1e-6)) x",
        "Oh et al. 2025 (arXiv 2505.11881); BootsofLagrangian/ortho-residual",
        written(_orthogonal),
    ),
    Stream(
        "delta_rule",
        "x + s k (v - <k, x>), k = f / norm(f), s = 2 sigmoid(W LN(x) + c), v = 4 sigmoid(U x + d); "
        "s 1, v 2 at first but for W, U ~ N(0, 1 / (4 D))",
        "Zhang et al. 2026 (arXiv 2601.00417); yifanzhang-pro/deep-delta-learning "
        "model/DDL-vdim1-gpt-mha-rope.py",
        written(_delta),
        read=_normed_read,
        norms={"read_norm": NormSlot()},
        parameters=(
            _kernel("gate_kernel", _column, _half_by_fan_in),
            StreamParameter("gate_bias", _one, 0.0),
            _kernel("value_kernel", _column, _half_by_fan_in),
            StreamParameter("value_bias", _one, 0.0),
        ),
    ),
    Stream(
        "mean_split",
        "a x + g (b f - m(b f)) + h (m(b f) - m(a x)), m the mean over valid tokens, g and h [D], "
        "0.03 and 0 at first",
        "arXiv 2605.06169; erwold/mv-split dit.py (FusedMVSplitNorm1Fallback)",
        written(_split_mean),
        parameters=(
            StreamParameter("scale", vector, 0.03),
            StreamParameter("alpha", vector, 0.0),
        ),
    ),
    Stream(
        "modulated_gate",
        "f reads LN(x) (1 + s) + t; a x + g b f; (t, s, g) = W silu(c) + d of the condition c, "
        "W and d 0 at first",
        "Peebles and Xie 2022 (arXiv 2212.09748); facebookresearch/DiT models.py (DiTBlock)",
        written(_modulated),
        read=_modulated_read,
        norms={"read_norm": NormSlot(norm="layer_plain")},
        parameters=(
            _kernel("modulation_kernel", _conditioned, 0.0),
            StreamParameter("modulation_bias", _three_vectors, 0.0),
        ),
    ),
)
