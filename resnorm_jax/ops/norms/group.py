"""Group norm as a pure function of arrays."""

from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.ops.norms.complex_numbers import standardize
from resnorm_jax.ops.norms.operands import affine, check_norm, inexact
from resnorm_jax.ops.statistics import Axes, normalized_axes, statistics_dtype


def group_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    groups: int,
    axis: int | Axes | None = None,
    epsilon: float = 1e-6,
    mask: jax.Array | None = None,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
) -> jax.Array:
    """Group norm: layer norm of each group of features, then ``* scale + bias``.

    Args:
      x: ``[B, ..., D]``, floating point (integers are taken as float32).
      scale: factor of each feature ``[D]``, or None.
      bias: offset of each feature ``[D]``, or None.
      groups: number of groups; divides D. Group k holds the features from ``k D / groups`` on.
      axis: axes of the statistics, the last among them (of which each group takes its part); None
        for all but the first.
      epsilon: added to the variance, inside the root. 1e-6 as in flax; torch uses 1e-5.
      mask: boolean, broadcastable to ``x``; True where an element counts. Other elements, NaN
        included, change nothing and come out as zero.
      axis_name: name of a mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: if ``groups`` does not divide the features, or ``axis`` lacks the last.

    Source: Wu and He 2018 (arXiv 1803.08494).

    >>> import jax.numpy as jnp
    >>> print(group_norm(jnp.array([[1.0, 3.0, 10.0, 30.0]]), groups=2).round(4))
    [[-1.  1. -1.  1.]]
    """
    mask = check_norm(x, mask, scale=scale, bias=bias)
    x = inexact(x)
    whole = tuple(range(1, x.ndim)) if x.ndim > 1 else 0
    axes = normalized_axes(whole if axis is None else axis, x.ndim)
    if axes[-1] != x.ndim - 1:
        raise ValueError(f"axis {axis} must include the last, which holds the features")
    features = x.shape[-1]
    if groups < 1 or features % groups:
        raise ValueError(f"{groups} groups do not divide {features} features")
    shape = (*x.shape[:-1], groups, features // groups)
    if mask is not None:
        mask = jnp.broadcast_to(mask, x.shape)
        x = jnp.where(mask, x, 0)
    normed, _ = standardize(
        x.astype(statistics_dtype(x)).reshape(shape),
        None if mask is None else mask.reshape(shape),
        (*axes[:-1], x.ndim),
        epsilon,
        True,
        axis_name,
        axis_index_groups,
    )
    out = affine(normed.reshape(x.shape), scale, bias, (x.ndim - 1,))
    if mask is not None:
        out = jnp.where(mask, out, 0)
    return out.astype(x.dtype)
