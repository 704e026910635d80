"""Standardizing complex numbers: one mean, and one variance ``E|x - mean|^2`` of both parts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops import statistics
from resnorm_jax.ops.statistics import Axes, masked_mean


def squared(x: jax.Array) -> jax.Array:
    """Return ``|x|^2``, real."""
    return x.real * x.real + x.imag * x.imag if jnp.iscomplexobj(x) else x * x


def standardize(
    x: jax.Array,
    mask: jax.Array | None,
    axes: Axes,
    epsilon: float,
    subtract_mean: bool,
    axis_name: str | None = None,
    groups: Any = None,
) -> tuple[jax.Array, jax.Array]:
    """Return what `resnorm_jax.ops.statistics.standardize` does, of complex numbers too.

    Real and imaginary parts are laid along a last axis. Over that axis too, the mean square is half of
    ``E|x|^2``: so epsilon is halved, and the root of the half taken out at the end.
    """
    if not jnp.iscomplexobj(x):
        return statistics.standardize(x, mask, axes, epsilon, subtract_mean, axis_name, groups)
    parts = jnp.stack([x.real, x.imag], axis=-1)
    mask = None if mask is None else mask[..., None]
    means = 2 if subtract_mean else 0  # the second takes the first one's rounding error out
    for _ in range(means):
        parts = parts - masked_mean(parts, mask, axes, axis_name, groups)
        parts = parts if mask is None else jnp.where(mask, parts, 0)
    normed, inverse = statistics.standardize(
        parts, mask, (*axes, x.ndim), epsilon / 2, False, axis_name, groups
    )
    root = math.sqrt(0.5)
    normed = normed * root
    return lax.complex(normed[..., 0], normed[..., 1]), inverse[..., 0] * root
