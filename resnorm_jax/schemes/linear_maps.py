"""Arrangements that add a linear map of the stream, or leave a part of the branch out."""

import jax
import jax.numpy as jnp

from resnorm_jax.ops.masks import zero_padding
from resnorm_jax.ops.statistics import masked_mean, statistics_dtype
from resnorm_jax.schemes.slots import NORM, NormSlot
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter, by_fan_in, vector, written

ORTHOGONAL_EPSILON = 1e-6  # BootsofLagrangian/ortho-residual (connect)
KEY_EPSILON = 1e-5  # yifanzhang-pro/deep-delta-learning (ddl_k_eps)
LARGEST_VALUE = 4.0  # the same (ddl_v_sigmoid_scale)
LARGEST_RANK = 64  # transformers models/gemma3n (laurel_rank)


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


def _half_by_fan_in(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    return 0.5 * by_fan_in(key, shape, dtype, site)


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


ROWS = (
    Arrangement(
        name="laurel_lr",
        equation="x + f(LN(x)) + B A x, of low rank, B 0 at first; final LN",
        source="Menghani et al. 2024 (arXiv 2411.07501), LR",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="low_rank_skip",
            equation="a x + b f + B A a x, rank at most 64 and D / 4, B 0 at first",
            source="Menghani et al. 2024 (arXiv 2411.07501); the rank is Gemma 3n's",
            write=written(_low_rank),
            parameters=(
                StreamParameter("down_kernel", _down, by_fan_in),
                StreamParameter("up_kernel", _up, 0.0),
            ),
        ),
    ),
    Arrangement(
        name="orthogonal_update",
        equation="x + f - (<x, f> / <x, x>) x, f = f(LN(x)); final LN",
        source="Oh et al. 2025 (arXiv 2505.11881); BootsofLagrangian/ortho-residual",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="orthogonal_sum",
            equation="a x + b f - (<x, f> / (<x, x> + 1e-6)) x",
            source="Oh et al. 2025 (arXiv 2505.11881); BootsofLagrangian/ortho-residual",
            write=written(_orthogonal),
        ),
    ),
    Arrangement(
        name="mv_split",
        equation="LN(x + g (f(x) - m f) + h (m f - m x)), m the mean over tokens; g 0.03, h 0 first",
        source="arXiv 2605.06169; erwold/mv-split dit.py (DiTBlock)",
        norm_on_stream=NORM,
        stream=Stream(
            name="mean_split",
            equation="a x + g (b f - m(b f)) + h (m(b f) - m(a x)), m the mean over valid tokens, g and h [D], "
            "0.03 and 0 at first",
            source="arXiv 2605.06169; erwold/mv-split dit.py (FusedMVSplitNorm1Fallback)",
            write=written(_split_mean),
            parameters=(
                StreamParameter("scale", vector, 0.03),
                StreamParameter("alpha", vector, 0.0),
            ),
        ),
    ),
    Arrangement(
        name="deep_delta",
        equation="x + s k (v - <k, x>), k = f(LN(x)) to unit length, s and v of x; final LN",
        source="Zhang et al. 2026 (arXiv 2601.00417); yifanzhang-pro/deep-delta-learning "
        "model/DDL-vdim1-gpt-mha-rope.py",
        final_norm=NORM,
        stream=Stream(
            name="delta_rule",
            equation="x + s k (v - <k, x>), k = f / norm(f), s = 2 sigmoid(W LN(x) + c), v = 4 sigmoid(U x + d); "
            "s 1, v 2 at first but for W, U ~ N(0, 1 / (4 D))",
            source="Zhang et al. 2026 (arXiv 2601.00417); yifanzhang-pro/deep-delta-learning "
            "model/DDL-vdim1-gpt-mha-rope.py",
            write=written(_delta),
            read=_normed_read,
            norms={"read_norm": NormSlot()},
            parameters=(
                StreamParameter("gate_kernel", _column, _half_by_fan_in),
                StreamParameter("gate_bias", _one, 0.0),
                StreamParameter("value_kernel", _column, _half_by_fan_in),
                StreamParameter("value_bias", _one, 0.0),
            ),
        ),
    ),
)
