"""Norms that divide by a length: relatives of RMS norm that differ in a constant or an order."""

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.arguments import parameter
from resnorm_jax.ops.norms.core import rms_norm
from resnorm_jax.ops.norms.operands import affine, floating
from resnorm_jax.ops.statistics import statistics_dtype


def scale_norm(x: jax.Array, scale: jax.Array, *, epsilon: float = 1e-5) -> jax.Array:
    r"""Scale norm: ``scale * x / max(|x|, epsilon)`` with one scalar and the 2-norm of each row.

    $$ g \frac{x}{\max(\Vert x \Vert_2, \epsilon)} $$

    Args:
      x: ``[..., D]``, floating point.
      scale: scalar; ``sqrt(D)`` at first.
      epsilon: least length that is divided by.

    Returns:
      Array of ``x``'s shape and dtype. A zero row gives zeros, with finite gradients.

    Source: Nguyen and Salazar 2019 (arXiv 1910.05895); tnq177/transformers_without_tears.

    >>> import jax.numpy as jnp
    >>> print(scale_norm(jnp.array([3.0, 4.0]), 10.0))
    [6. 8.]
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    length = jnp.maximum(_length(wide), epsilon)
    return (parameter("scale", scale, wide) * wide / length).astype(x.dtype)


def l2_norm(x: jax.Array, *, epsilon: float = 1e-12) -> jax.Array:
    r"""Unit length: ``x / sqrt(sum(x**2) + epsilon)``; epsilon inside, so that zero rows are safe.

    $$ \frac{x}{\sqrt{\sum_i x_i^2 + \epsilon}} $$

    Args:
      x: ``[..., D]``, floating point.
      epsilon: added to the square of the length.

    Returns:
      Array of ``x``'s shape and dtype.

    Source: Loshchilov et al. 2024 (arXiv 2410.01131), the Norm of section 2, there without epsilon.
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    total = jnp.sum(wide * wide, axis=-1, keepdims=True)
    return (wide * lax.rsqrt(total + jnp.asarray(epsilon, wide.dtype))).astype(x.dtype)


def outside_rms_norm(
    x: jax.Array, scale: jax.Array | None = None, *, epsilon: float = 1e-8, fraction: float = 1.0
) -> jax.Array:
    """RMS norm of the paper's code: ``x / (rms(x) + epsilon) * scale``, epsilon outside the root.

    Args:
      x: ``[..., D]``, floating point.
      scale: ``[D]`` or None.
      epsilon: added to the root mean square.
      fraction: the share of the features, the first ``max(1, int(fraction D))``, that the root mean
        square is taken over: pRMSNorm.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: if ``fraction`` lies outside (0, 1].

    Source: Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4, and its pRMSNorm; bzhangGo/rmsnorm, whose
    ``int(fraction D)`` may be 0, where ours is at least 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction}; it must lie in (0, 1]")
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    count = max(1, int(fraction * x.shape[-1]))
    rms = _length(wide[..., :count]) / count**0.5
    return affine(wide / (rms + epsilon), scale, None, (x.ndim - 1,)).astype(x.dtype)


def llama_rms_norm(x: jax.Array, scale: jax.Array, *, epsilon: float = 1e-6) -> jax.Array:
    """RMS norm that casts to ``x``'s dtype *before* it multiplies by the scale, as Llama does.

    Equal to `rms_norm` in float32. In bfloat16 it rounds twice.

    Args:
      x: ``[..., D]``, floating point.
      scale: ``[D]``.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    Source: LlamaRMSNorm of huggingface/transformers.
    """
    normed = rms_norm(floating(x), epsilon=epsilon)
    return affine(normed, scale, None, (normed.ndim - 1,))


def input_scaled_rms_norm(x: jax.Array, scale: jax.Array, *, epsilon: float = 1e-6) -> jax.Array:
    """RMS norm of the scaled input: ``z / sqrt(mean(z**2) + epsilon)`` with ``z = (1 + scale) x``.

    Args:
      x: ``[..., D]``, floating point.
      scale: ``[D]``, zero-centred.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    Source: the Muse Spark model of huggingface/transformers.
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    z = wide * (1 + parameter("scale", scale, wide))
    return rms_norm(z, epsilon=epsilon).astype(x.dtype)


def _length(x: jax.Array) -> jax.Array:
    """The 2-norm of rows (kept as size 1), with gradient 0 at zero rows."""
    total = jnp.sum(x * x, axis=-1, keepdims=True)
    positive = total > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1)), 0)
