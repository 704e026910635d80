"""RMS norm of rows whose mean is zero, stored without their last element."""

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.norms.operands import floating
from resnorm_jax.ops.statistics import statistics_dtype


def crms_norm(x: jax.Array, *, epsilon: float = 1e-6) -> jax.Array:
    """Compressed RMS norm: ``x / sqrt((sum(x**2) + sum(x)**2) / D + epsilon)`` of D - 1 elements.

    A row with mean zero is known by all its elements but one: `compress` takes the last away, and
    `expand` brings it back.

    Args:
      x: ``[..., D - 1]``, floating point: a row of D elements, with mean zero, without its last.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype: the RMS norm (and layer norm) of the row without its last.

    Source: Jiang et al. 2023 (arXiv 2305.14858); ZixuanJiang/pre-rmsnorm-transformer.

    >>> import jax.numpy as jnp
    >>> print(crms_norm(jnp.array([3.0]), epsilon=0.0))
    [1.]
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    last = jnp.sum(wide, axis=-1, keepdims=True)
    square = (jnp.sum(wide * wide, axis=-1, keepdims=True) + last * last) / (x.shape[-1] + 1)
    return (wide * lax.rsqrt(square + jnp.asarray(epsilon, wide.dtype))).astype(x.dtype)


def compress(x: jax.Array) -> jax.Array:
    """Take a row's mean and then its last element away: ``[..., D]`` to ``[..., D - 1]``.

    Args:
      x: ``[..., D]``, floating point.

    Returns:
      ``[..., D - 1]`` of ``x``'s dtype.

    Source: as `crms_norm`.
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    return (wide - jnp.mean(wide, axis=-1, keepdims=True))[..., :-1].astype(x.dtype)


def expand(x: jax.Array) -> jax.Array:
    """Bring back the last element, minus the sum of the others: ``[..., D - 1]`` to ``[..., D]``.

    Args:
      x: ``[..., D - 1]``, floating point.

    Returns:
      ``[..., D]`` of ``x``'s dtype, with mean zero.

    Source: as `crms_norm`.

    >>> import jax.numpy as jnp
    >>> print(expand(jnp.array([1.0, 2.0])))
    [ 1.  2. -3.]
    """
    x = floating(x)
    last = -jnp.sum(x.astype(statistics_dtype(x)), axis=-1, keepdims=True)
    return jnp.concatenate([x, last.astype(x.dtype)], axis=-1)
