"""Norms whose statistics run over the rows of a batch: by the batch, or by given statistics.

Shapes: ``x`` may have any rank; statistics run over ``axis``, by default all axes but the last.
Across devices sums travel and the ratio is taken once, so that devices with different numbers of
valid elements count rightly (the mean of the devices' means would be wrong).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.arguments import check_fits, check_kept
from resnorm_jax.ops.norms.complex_numbers import squared, standardize
from resnorm_jax.ops.norms.operands import affine, check_norm, inexact
from resnorm_jax.ops.statistics import Axes, masked_mean, normalized_axes, statistics_dtype


def batch_statistics(
    x: jax.Array,
    *,
    axis: int | Axes | None = None,
    mask: jax.Array | None = None,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean and biased variance of the valid elements, and where there is any: ``mean_B(x)``.

    Args:
      x: array of any rank, floating point (integers are taken as float32).
      axis: axis or axes of the statistics; None for all but the last.
      mask: boolean, broadcastable to ``x``; True where an element counts. None counts all.
      axis_name: name of a mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.

    Returns:
      ``mean``, ``variance`` and ``seen``, each of the shape of ``x`` without ``axis``; the first two
      in float32 or wider, the last boolean: False where no element counts on any device (mean and
      variance are 0 there).

    >>> import jax.numpy as jnp
    >>> mean, variance, seen = batch_statistics(jnp.array([[1.0, 5.0], [3.0, 5.0]]))
    >>> print(mean, variance, seen)
    [2. 5.] [1. 0.] [ True  True]
    """
    x, mask, axes, _ = _prepare(x, mask, axis)

    def mean(values: jax.Array) -> jax.Array:
        return masked_mean(values, mask, axes, axis_name, axis_index_groups)

    first = mean(x)
    centred = x - first
    correction = mean(centred)  # the rounding error of the first mean, as in `standardize`
    variance = jnp.maximum(mean(squared(centred)) - squared(correction), 0)
    seen = _seen(mask, x, axes, axis_name, axis_index_groups)
    return jnp.squeeze(first + correction, axes), jnp.squeeze(variance, axes), seen


def batch_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    axis: int | Axes | None = None,
    epsilon: float = 1e-5,
    mask: jax.Array | None = None,
    axis_name: str | None = None,
    axis_index_groups: Any = None,
) -> jax.Array:
    """Batch norm by the batch: ``(x - mean_B(x)) / sqrt(var_B(x) + epsilon) * scale + bias``.

    Args:
      x: array of any rank, floating point (integers are taken as float32).
      scale: factor of each feature, or None.
      bias: offset of each feature, or None.
      axis: axis or axes of the statistics; None for all but the last.
      epsilon: added to the variance, inside the root.
      mask: boolean, broadcastable to ``x``; True where an element counts. Other elements, NaN
        included, change nothing and come out as zero.
      axis_name: name of a mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.

    Returns:
      Array of ``x``'s shape and dtype. The variance is biased.

    Raises:
      ValueError: if ``axis`` is out of range, or ``scale`` or ``bias`` does not fit.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167). The mask is not in the paper.

    >>> import jax.numpy as jnp
    >>> print(batch_norm(jnp.array([[1.0, 5.0], [3.0, 5.0]]), epsilon=1e-12))
    [[-1.  0.]
     [ 1.  0.]]
    """
    x, mask, axes, dtype = _prepare(x, mask, axis, scale=scale, bias=bias)
    normed, _ = standardize(x, mask, axes, epsilon, True, axis_name, axis_index_groups)
    return _finish(normed, scale, bias, axes, mask).astype(dtype)


def norm_by_statistics(
    x: jax.Array,
    mean: jax.Array | None,
    variance: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    axis: int | Axes | None = None,
    epsilon: float = 1e-5,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Batch norm by given statistics: ``(x - mean) / sqrt(variance + epsilon) * scale + bias``.

    Args:
      x: array of any rank, floating point (integers are taken as float32).
      mean: of each feature, shape of ``x`` without ``axis``; None subtracts nothing.
      variance: of each feature; without a mean, the mean square.
      scale: as in `batch_norm`.
      bias: as in `batch_norm`.
      axis: as in `batch_norm`.
      epsilon: as in `batch_norm`.
      mask: as in `batch_norm`.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: as in `batch_norm`.

    >>> import jax.numpy as jnp
    >>> print(norm_by_statistics(jnp.array([[3.0]]), jnp.array([1.0]), jnp.array([4.0]), epsilon=0.0))
    [[1.]]
    """
    x, mask, axes, dtype = _prepare(x, mask, axis, scale=scale, bias=bias)

    features = tuple(n for a, n in enumerate(x.shape) if a not in axes)

    def along(name: str, statistic: Any, dtype: Any) -> jax.Array:
        check_kept(name, statistic, "x", dtype)
        check_fits(name, statistic, features, "x without its axes of the statistics")
        return jnp.expand_dims(jnp.asarray(statistic, dtype), axes)

    real = jnp.finfo(x.dtype).dtype
    centred = x if mean is None else x - along("mean", mean, x.dtype)
    inverse = lax.rsqrt(along("variance", variance, real) + jnp.asarray(epsilon, real))
    normed = centred * inverse.astype(x.dtype)
    return _finish(normed, scale, bias, axes, mask).astype(dtype)


def _prepare(x: Any, mask: Any, axis: Any, **parameters: Any) -> tuple[jax.Array, Any, Axes, Any]:
    """Return ``x``, wide and without what is masked, the mask, the reduced axes and ``x``'s dtype."""
    mask = check_norm(x, mask, **parameters)
    x = inexact(x)
    axes = normalized_axes(tuple(range(x.ndim - 1)) if axis is None else axis, x.ndim)
    if mask is not None:
        x = jnp.where(mask, x, 0)
    return x.astype(statistics_dtype(x)), mask, axes, x.dtype


def _finish(normed: jax.Array, scale: Any, bias: Any, axes: Axes, mask: Any) -> jax.Array:
    """Apply scale and bias along the features, and leave zero where masked."""
    features = tuple(a for a in range(normed.ndim) if a not in axes)
    out = affine(normed, scale, bias, features)
    return out if mask is None else jnp.where(mask, out, 0)


def _seen(mask: Any, x: jax.Array, axes: Axes, axis_name: str | None, groups: Any) -> jax.Array:
    if mask is None:
        return jnp.ones([n for a, n in enumerate(x.shape) if a not in axes], bool)
    count = jnp.sum(jnp.broadcast_to(mask, x.shape), axes, dtype=jnp.finfo(x.dtype).dtype)
    if axis_name is not None:
        count = lax.psum(count, axis_name, axis_index_groups=groups)
    return count > 0
