"""The one place where a norm takes its statistics: safe forward, safe derivatives.

Statistics are in float32 at least, whatever the input (float64 stays float64). The variance is the
*corrected two-pass* one of Chan, Golub and LeVeque, "Algorithms for computing the sample variance"
(1983), eq. 1.7: the rows are centred by a first mean, whose own rounding error is measured in the
second pass and taken out. The usual two-pass form keeps that error, ``E[x^2] - E[x]^2`` squares it.

What rounding takes from the inverse deviation and from the centred row is carried along as a small
second part: these are numbers of a row, or of an element at hand, so that no pass is added.

The derivative is given as a ``custom_jvp``: it works in forward and in reverse mode, to any order,
and its transpose is the short backward pass that needs only the normalized rows.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

Axes = tuple[int, ...]


def statistics_dtype(x: jax.Array) -> jnp.dtype:
    """Return the dtype statistics of ``x`` are taken in: float32, or wider or complex if ``x`` is."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return x.dtype
    # Not promote_types, which refuses mixed dtypes under jax_numpy_dtype_promotion="strict".
    wider = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits > 32
    return x.dtype if wider else jnp.dtype(jnp.float32)


def normalized_axes(axis: int | Axes, ndim: int) -> Axes:
    """Return ``axis`` as a sorted tuple of non-negative axes; raise ValueError if out of range."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(not -ndim <= a < ndim for a in axes):
        raise ValueError(f"axis {axis} is out of range for an array with {ndim} dimensions")
    return tuple(sorted({a % ndim for a in axes}))


def masked_mean(
    x: jax.Array, mask: jax.Array | None, axes: Axes, axis_name: str | None = None, groups=None
) -> jax.Array:
    """Mean of the valid elements over ``axes`` (kept as size 1), and over devices if named.

    A row without a valid element has mean 0. Across devices sums travel and the ratio is taken once,
    so that devices with different numbers of valid elements count rightly.
    """
    if mask is None and axis_name is None:
        return jnp.mean(x, axes, keepdims=True)
    valid = jnp.ones_like(x) if mask is None else jnp.broadcast_to(mask, x.shape).astype(x.dtype)
    total, count = jnp.sum(x * valid, axes, keepdims=True), jnp.sum(valid, axes, keepdims=True)
    if axis_name is not None:
        total, count = lax.psum((total, count), axis_name, axis_index_groups=groups)
    return total / jnp.maximum(count, 1)


def moments(
    x: jax.Array,
    mean: Callable[[jax.Array], jax.Array],
    subtract_mean: bool,
    epsilon: float,
    keep: Callable[[jax.Array], jax.Array] = lambda array: array,
) -> tuple[jax.Array | None, jax.Array | None, jax.Array, jax.Array]:
    """Return a row's mean in two parts (None without a mean), and ``1 / sqrt(var + epsilon)`` in two.

    The second part of the mean is the rounding error of the first. ``keep`` may tell the compiler that
    the centred rows are used twice.
    """
    if not subtract_mean:
        return None, None, *_rsqrt(mean(x * x) + jnp.asarray(epsilon, x.dtype))
    first = mean(x)
    near = keep(x - first)
    correction = mean(near)
    variance = jnp.maximum(mean(near * near) - correction * correction, 0)
    return first, correction, *_rsqrt(variance + jnp.asarray(epsilon, x.dtype))


def normalized(
    x: jax.Array,
    first: jax.Array | None,
    correction: jax.Array | None,
    inverse: jax.Array,
    rest: jax.Array,
) -> jax.Array:
    """Return ``(x - first - correction) * (inverse + rest)`` to the last digit, or nearly."""
    if first is None or correction is None:
        return x * inverse + x * rest
    near = x - first
    x = near - correction
    residue = (near - x) - correction  # what this subtraction lost
    return x * inverse + (x * rest + residue * inverse)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4, 5, 6))
def standardize(
    x: jax.Array,
    mask: jax.Array | None,
    axes: Axes,
    epsilon: float,
    subtract_mean: bool,
    axis_name: str | None,
    groups,
) -> tuple[jax.Array, jax.Array]:
    """Return ``(x - mean) * r`` and ``r = 1 / sqrt(var + epsilon)``, or ``x * r`` without the mean.

    Args:
      x: float32 or float64 array; masked elements already zero.
      mask: boolean, broadcastable to ``x``; True where an element counts. None counts all.
      axes: non-negative axes of the statistics.
      epsilon: added inside the root.
      subtract_mean: True for layer norm; False for RMS norm, whose ``var`` is ``mean(x**2)``.
      axis_name: pmap axis over which the statistics are shared, or None.
      groups: ``axis_index_groups`` of that axis, or None.
    """
    mean = partial(masked_mean, mask=mask, axes=axes, axis_name=axis_name, groups=groups)
    first, correction, inverse, rest = moments(x, mean, subtract_mean, epsilon)
    normed = normalized(x, first, correction, inverse, rest)
    return (normed if mask is None else jnp.where(mask, normed, 0)), inverse


@standardize.defjvp
def _standardize_jvp(axes, epsilon, subtract_mean, axis_name, groups, primals, tangents):
    # d(normed) = r (dx - mean(dx) - normed mean(normed dx));  dr = -r^2 mean(normed dx)
    (x, mask), (dx, _) = primals, tangents
    normed, inverse = standardize(x, mask, axes, epsilon, subtract_mean, axis_name, groups)
    out = normed, inverse
    # Without the barrier XLA spreads the inverse over whole arrays and computes the rows again in
    # the backward pass: a third slower on CPU, measured with `resnorm bench`.
    inverse = lax.optimization_barrier(inverse)
    mean = partial(masked_mean, mask=mask, axes=axes, axis_name=axis_name, groups=groups)
    projection = mean(normed * dx)
    d_normed = dx - normed * projection
    if subtract_mean:
        d_normed = d_normed - mean(dx)
    d_normed = d_normed * inverse
    if mask is not None:
        d_normed = jnp.where(mask, d_normed, 0)
    return out, (d_normed, -inverse * inverse * projection)


def _rsqrt(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return ``r`` and ``e`` with ``r + e = 1 / sqrt(x)`` to twice the digits of ``r``, or nearly.

    One Newton step, ``e = r (1 - x r r) / 2``, whose difference is taken from products of halves of
    the digits: these are exact, so that it makes no difference whether XLA fuses them with a sum.
    """
    root = lax.rsqrt(x)
    x1, x2 = _halves(x)
    r1, r2 = _halves(root)
    p1, p2 = _halves(x1 * r1)  # x r = p1 + p2 + p3; the order keeps x r r from under- and overflow
    p3 = x1 * r2 + x2 * r1 + x2 * r2
    error = (1 - p1 * r1) - p1 * r2 - p2 * r1 - (p2 * r2 + p3 * root)
    limits = jnp.finfo(x.dtype)
    halves_are_exact = (x > limits.tiny / limits.eps) & (x < limits.max / 2)
    return root, jnp.where(halves_are_exact, 0.5 * root * error, 0)


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split ``x`` into the upper half of its digits and the rest."""
    limits = jnp.finfo(x.dtype)
    upper = lax.reduce_precision(x, limits.nexp, (limits.nmant + 1) // 2 - 1)
    return upper, x - upper
