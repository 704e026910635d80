"""Norms whose factor depends on the row itself."""

import jax
import jax.numpy as jnp

from resnorm_jax.ops.norms.core import rms_norm
from resnorm_jax.ops.norms.operands import affine, floating
from resnorm_jax.ops.statistics import statistics_dtype


def seed_norm(
    x: jax.Array,
    scale: jax.Array,
    alpha: jax.Array,
    beta: jax.Array,
    *,
    heads: int = 1,
    epsilon: float = 1e-6,
) -> jax.Array:
    """SeeDNorm: ``(tanh(x . beta) * alpha + scale) * x / sqrt(mean(x**2) + epsilon)``.

    Args:
      x: ``[..., D]``, floating point.
      scale: ``[D]``, 1 at first.
      alpha: ``[D]``, 1 at first.
      beta: ``[D]``, 0 at first: the norm then is RMS norm, and alpha has no gradient yet.
      heads: runs of features that ``x . beta`` is taken over each by itself; each rescales its own
        features. Must divide D. The root mean square is that of the whole row.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: if ``heads`` does not divide D, or a parameter does not fit.

    Source: Cai et al. 2025 (arXiv 2510.22777). No official code: formula and first values are
    checked against reviews of the paper and a public implementation.

    >>> import jax.numpy as jnp
    >>> ones = jnp.ones(2)
    >>> print(seed_norm(jnp.array([2.0, -2.0]), ones, ones, 0 * ones, epsilon=0.0))
    [ 1. -1.]
    """
    x = floating(x)
    width = x.shape[-1]
    if heads < 1 or width % heads:
        raise ValueError(f"heads={heads} does not divide the width {width}")
    wide, features = x.astype(statistics_dtype(x)), (x.ndim - 1,)
    products = affine(wide, beta, None, features, ("beta", "")).reshape(
        (*x.shape[:-1], heads, width // heads)
    )
    rescale = jnp.tanh(jnp.sum(products, axis=-1, keepdims=True))
    rescale = jnp.broadcast_to(rescale, products.shape).reshape(x.shape)
    factor = affine(rescale, alpha, scale, features, ("alpha", "scale"))
    return (factor * rms_norm(wide, epsilon=epsilon)).astype(x.dtype)
