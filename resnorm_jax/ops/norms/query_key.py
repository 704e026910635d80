"""Norms of queries and keys, which bound the logits of attention.

By head they are `layer_norm` and `rms_norm` over the last axis of ``[B, L, H, K]`` (ViT-22B;
Qwen 3, Gemma 3). Here is what is not: a norm over all heads together, and cosine attention.
"""

import math

import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_axes, check_kept, check_real
from resnorm_jax.errors import ShapeError
from resnorm_jax.ops.norms.core import rms_norm
from resnorm_jax.ops.norms.operands import floating, inexact
from resnorm_jax.ops.norms.scaled import l2_norm
from resnorm_jax.ops.statistics import statistics_dtype


def joint_rms_norm(
    x: jax.Array, scale: jax.Array | None = None, *, epsilon: float = 1e-6
) -> jax.Array:
    """RMS norm of queries or keys over all heads together: ``x / sqrt(mean(x**2) + epsilon) * scale``.

    Args:
      x: ``[..., H, K]``, floating point.
      scale: ``[H, K]`` or None.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: if ``scale`` does not fit.

    Source: the OLMo 2 model of huggingface/transformers, which norms before it splits the heads.
    """
    check_axes(x=(x, "... H K"))
    return rms_norm(floating(x), scale, axis=(-2, -1), epsilon=epsilon)


def cosine_query_key(
    query: jax.Array, key: jax.Array, scale: jax.Array | float, *, epsilon: float = 1e-12
) -> tuple[jax.Array, jax.Array]:
    """Queries and keys for which ``q k^T / sqrt(K)`` is ``scale * cos(query, key)``.

    Ordinary attention divides by ``sqrt(K)``: the queries are multiplied by it beforehand.

    Args:
      query: ``[B, T, H, K]``, floating point.
      key: ``[B, S, H, K]``.
      scale: scalar, or ``[H]`` by head: see `henry_scale` and `swin_scale`.
      epsilon: added to the squares of the lengths.

    Returns:
      Queries and keys of the shapes and dtypes they had.

    Raises:
      ValueError: if ``scale`` is neither a scalar nor ``[H]``.

    Source: Henry et al. 2020 (arXiv 2010.04245), CyndxAI/QKNorm; Liu et al. 2021 (arXiv 2111.09883),
    Swin V2. Both divide by the larger of length and 1e-12; epsilon inside the root is safe at zero.

    >>> import jax.numpy as jnp
    >>> q, k = cosine_query_key(jnp.full((1, 1, 1, 4), 3.0), jnp.ones((1, 1, 1, 4)), 10.0)
    >>> round(float((q * k).sum() / 4**0.5), 4)
    10.0
    """
    query, key = floating(query, "query"), floating(key, "key")
    check_axes(query=(query, "... T H K"), key=(key, "... S H K"))
    check_kept("scale", scale, "query", query.dtype)
    wide = query.astype(statistics_dtype(query))
    scale = jnp.asarray(scale, wide.dtype)
    heads, width = query.shape[-2:]
    if scale.shape not in ((), (heads,)):
        raise ShapeError(f"scale has shape {scale.shape}; it must be a scalar or {(heads,)}")
    factor = (scale * math.sqrt(width)).reshape((1,) * (query.ndim - 2) + (scale.size, 1))
    query = (l2_norm(wide, epsilon=epsilon) * factor).astype(query.dtype)
    return query, l2_norm(key, epsilon=epsilon)


def henry_scale(length: int) -> float:
    """First value of QKNorm's learned scalar: ``log2(length**2 - length)``.

    Args:
      length: of a long sequence of the training data: the 97.5th percentile.

    Returns:
      A number.

    Raises:
      ValueError: for fewer than two positions, where the logarithm does not exist.

    Source: Henry et al. 2020 (arXiv 2010.04245); CyndxAI/QKNorm layers.py.

    >>> henry_scale(2)
    1.0
    """
    if length < 2:
        raise ValueError(f"length is {length}; log2(length^2 - length) needs 2 at least")
    return math.log2(length * length - length)


SWIN_FIRST = math.log(10)


def swin_scale(parameter: jax.Array) -> jax.Array:
    """Swin V2's factor: ``exp(min(parameter, log 100))``; the parameter is log 10 at first.

    Args:
      parameter: ``[H]``, one a head; `SWIN_FIRST` at first.

    Returns:
      ``[H]``, at most 100.

    Source: Liu et al. 2021 (arXiv 2111.09883); the Swinv2 model of huggingface/transformers.

    >>> import jax.numpy as jnp
    >>> print(swin_scale(jnp.array([SWIN_FIRST, 9.0])).astype(int))
    [ 10 100]
    """
    check_real("parameter", parameter)
    parameter = inexact(parameter)
    return jnp.exp(jnp.minimum(parameter, math.log(100)))
