"""Arrangements that add a linear map of the stream, or leave a part of the branch out."""

import jax
import jax.numpy as jnp

from resnorm_jax.ops.masks import zero_padding
from resnorm_jax.ops.statistics import masked_mean, statistics_dtype
from resnorm_jax.schemes.slots import NORM, NormSlot
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter, by_fan_in, vector, written

ORTHOGONAL_EPSILON = 1e-6  # BootsofLagrangian/ortho-residual (connect)
KEY_EPSILON = 1e-5  # yifanzhang-pro/deep-delta-learning (ddl_k_eps); its square stands in the root
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
    """``N(0, 1 / (4 rows))``, rows the first axis of its shape."""
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
        equation="x + f(LN(x)) + x A B, A [D, r] N(0, 1 / D) and B [r, D] 0 at first, r = min(64, "
        "max(1, floor(D / 4))), a pair a sublayer; final LN",
        source="Menghani et al. 2024 (arXiv 2411.07501), LR",
        used_by="Gemma 3n, there with a norm of x A B and other factors",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="low_rank_skip",
            equation="z + b f + z A B, z = a x, A (down_kernel) [D, r] N(0, 1 / D) and B "
            "(up_kernel) [r, D] 0 at first, r = min(64, max(1, floor(D / 4)))",
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
        equation="x + y - <x, y> / (<x, x> + 1e-6) x, y = f(LN(x)), products over the features of "
        "each position; final LN",
        source="Oh et al. 2025 (arXiv 2505.11881); BootsofLagrangian/ortho-residual",
        norm_before=NORM,
        final_norm=NORM,
        stream=Stream(
            name="orthogonal_sum",
            equation="z + y - <z, y> / (<z, z> + 1e-6) z, z = a x, y = b f, products over the "
            "features of each position",
            source="Oh et al. 2025 (arXiv 2505.11881); BootsofLagrangian/ortho-residual",
            write=written(_orthogonal),
        ),
    ),
    Arrangement(
        name="mv_split",
        equation="LN(x + g (y - m(y)) + h (m(y) - m(x))), y = f(x), m the mean over the valid "
        "positions of a sequence, g and h [D] a sublayer, 0.03 and 0 at first; no final norm",
        source="arXiv 2605.06169; erwold/mv-split dit.py (DiTBlock)",
        norm_on_stream=NORM,
        stream=Stream(
            name="mean_split",
            equation="z + g (y - m(y)) + h (m(y) - m(z)), z = a x, y = b f, m the mean over the "
            "valid positions of a sequence, g (scale) and h (alpha) [D] a sublayer, 0.03 and 0 at "
            "first",
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
        equation="x + r k (v - <k, x>), k = y / sqrt(<y, y> + 1e-10), y = f(LN(x)), r = 2 "
        "sigmoid(LN(x) W + c), v = 4 sigmoid(x U + d), r and v one number a position, W, U [D, 1] "
        "N(0, 1 / (4D)), c, d 0 at first; final LN",
        source="Zhang et al. 2026 (arXiv 2601.00417); yifanzhang-pro/deep-delta-learning "
        "model/DDL-vdim1-gpt-mha-rope.py",
        final_norm=NORM,
        stream=Stream(
            name="delta_rule",
            equation="f reads LN(x); z + r k (v - <k, z>), z = a x, k = b f / sqrt(<b f, b f> + "
            "1e-10), r = 2 sigmoid(LN(z) W + c), v = 4 sigmoid(z U + d), one LN (read_norm) for "
            "both, W (gate_kernel), U (value_kernel) [D, 1] N(0, 1 / (4D)), c (gate_bias), d "
            "(value_bias) 0 at first",
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
