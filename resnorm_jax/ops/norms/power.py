"""Power norm's one step: by a given mean square, with its approximate backward pass."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from resnorm_jax.arguments import as_mask, check_fits, check_real
from resnorm_jax.ops.statistics import Axes, masked_mean


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8, 9))
def power_scale(
    x: jax.Array,
    mask: jax.Array | None,
    square: jax.Array,
    batch_square: jax.Array,
    nu: jax.Array,
    keep: float,
    axes: Axes,
    epsilon: float,
    axis_name: str | None = None,
    groups: Any = None,
) -> jax.Array:
    """``z = x / sqrt(square + epsilon)``, whose gradient is the approximate one of power norm.

    For the cotangent g: ``h = g - (1 - keep) nu z``, the gradient of x is
    ``h / sqrt(batch_square + epsilon)``, and the *gradient of* ``nu`` *is its next value*,
    ``nu + mean(h z)``. A rule of its own, hence reverse mode only.

    Args:
      x: float32 or float64 array; masked elements already zero.
      mask: boolean, broadcastable to ``x``; True where an element counts. None counts all.
      square: mean square that divides, of ``x``'s rank; running or of the batch. No gradient.
      batch_square: mean square of the batch, of ``x``'s rank. No gradient.
      nu: running mean of ``g z``, of ``x``'s rank, over ``1 - keep``.
      keep: share of ``nu`` that a step keeps.
      axes: non-negative axes of the mean.
      epsilon: added inside the root.
      axis_name: mapped axis over which the mean is shared, or None.
      groups: ``axis_index_groups`` of that axis, or None.

    Returns:
      Array of ``x``'s shape and dtype.

    Source: Shen et al. 2020 (arXiv 2003.07845), as in sIncerass/powernorm, mask_powernorm.py. There
    padding enters ``mean(h z)``; here it does not.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones((1, 1))
    >>> print(power_scale(2 * one, None, 4 * one, 4 * one, 0 * one, 0.9, (0,), 0.0))
    [[1.]]
    """
    _check(x, mask, square=square, batch_square=batch_square, nu=nu)
    return x * lax.rsqrt(square + epsilon)


def _check(x: Any, mask: Any, **statistics: Any) -> jax.Array | None:
    check_real("x", x)
    for name, value in statistics.items():
        check_real(name, value)
        check_fits(name, value, x.shape, "x")
    mask = as_mask("mask", mask)
    check_fits("mask", mask, x.shape, "x", "a mask of positions is mask[..., None]")
    return mask


def _forward(
    x: Any, mask: Any, square: Any, batch_square: Any, nu: Any, keep: float, axes: Axes,
    epsilon: float, axis_name: str | None, groups: Any,
) -> tuple[jax.Array, tuple[Any, ...]]:  # fmt: skip
    mask = _check(x, mask, square=square, batch_square=batch_square, nu=nu)
    z = x * lax.rsqrt(square + epsilon)
    return z, (z, mask, square, batch_square, nu)


def _backward(
    keep: float, axes: Axes, epsilon: float, axis_name: str | None, groups: Any,
    kept: tuple[Any, ...], cotangent: jax.Array,
) -> tuple[Any, ...]:  # fmt: skip
    z, mask, square, batch_square, nu = kept
    h = cotangent - (1 - keep) * nu * z
    if mask is not None:
        h = jnp.where(mask, h, 0)
    new = nu + masked_mean(h * z, mask, axes, axis_name, groups)
    none = None if mask is None else np.zeros(mask.shape, jax.dtypes.float0)
    dx = h * lax.rsqrt(batch_square + epsilon)
    return dx, none, jnp.zeros_like(square), jnp.zeros_like(batch_square), new


power_scale.defvjp(_forward, _backward)
