"""Norms whose statistics give no gradient: instruments to tell what a norm's gradient does."""

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.norms.core import std_layer_norm
from resnorm_jax.ops.norms.operands import floating
from resnorm_jax.ops.statistics import masked_mean, statistics_dtype


def detach_norm(x: jax.Array, *, epsilon: float = 1e-5) -> jax.Array:
    """``(x - sg(mean)) / (sg(std) + epsilon)``: layer norm forward, a mere scaling backward.

    Args:
      x: ``[..., D]``, floating point.
      epsilon: added to the unbiased standard deviation, as in the official code.

    Returns:
      Array of ``x``'s shape and dtype; the value of `std_layer_norm` without scale and bias.

    Source: Xu et al. 2019 (arXiv 1911.07013); lancopku/AdaNorm.
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    axes = (x.ndim - 1,)
    mean = masked_mean(wide, None, axes)
    mean = lax.stop_gradient(mean + masked_mean(wide - mean, None, axes))
    total = jnp.sum((wide - mean) ** 2, axes, keepdims=True)
    std = lax.stop_gradient(jnp.sqrt(total / max(1, x.shape[-1] - 1)))
    return ((wide - mean) / (std + epsilon)).astype(x.dtype)


def ada_norm(
    x: jax.Array, *, epsilon: float = 1e-5, k: float = 0.1, factor: float = 1.0
) -> jax.Array:
    """``factor * (1 - sg(k z)) * z`` with ``z`` the row in standard units, no parameters.

    Args:
      x: ``[..., D]``, floating point.
      epsilon: added to the unbiased standard deviation, as in the official code.
      k: strength of the slope.
      factor: C of the paper, a constant that is tuned.

    Returns:
      Array of ``x``'s shape and dtype.

    Source: Xu et al. 2019 (arXiv 1911.07013); lancopku/AdaNorm (k = 1/10, gradient stopped).
    """
    x = floating(x)
    z = std_layer_norm(x.astype(statistics_dtype(x)), epsilon=epsilon)
    return (factor * (1 - lax.stop_gradient(k * z)) * z).astype(x.dtype)
