"""RMS norms by group of features, and RMS norms with a gate."""

import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_alike, check_kept
from resnorm_jax.ops.norms.core import rms_norm
from resnorm_jax.ops.norms.operands import affine, floating
from resnorm_jax.ops.statistics import statistics_dtype


def grouped_rms_norm(
    x: jax.Array, scale: jax.Array | None = None, *, groups: int, epsilon: float = 1e-6
) -> jax.Array:
    """RMS norm of each of ``groups`` runs of features: ``x_g / sqrt(mean(x_g**2) + epsilon) * scale``.

    With as many groups as heads this is the multi-head RMS norm of attention outputs.

    Args:
      x: ``[..., D]``, floating point.
      scale: ``[D]`` or None.
      groups: number of groups; must divide D.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: if ``groups`` does not divide D.

    Source: Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4, by group; the Mamba-2 and DiffLlama
    models of huggingface/transformers (there without scale in the latter).

    >>> import jax.numpy as jnp
    >>> print(grouped_rms_norm(jnp.array([3.0, -3.0, 5.0, 5.0]), groups=2, epsilon=0.0))
    [ 1. -1.  1.  1.]
    """
    x = floating(x)
    width = x.shape[-1]
    if groups < 1 or width % groups:
        raise ValueError(f"groups={groups} does not divide the width {width}")
    cut = x.reshape((*x.shape[:-1], groups, width // groups))
    normed = rms_norm(cut, epsilon=epsilon, dtype=statistics_dtype(x)).reshape(x.shape)
    return affine(normed, scale, None, (x.ndim - 1,)).astype(x.dtype)


def gated_rms_norm(
    x: jax.Array,
    gate: jax.Array,
    scale: jax.Array | None = None,
    *,
    norm_first: bool,
    groups: int = 1,
    epsilon: float = 1e-6,
) -> jax.Array:
    """RMS norm with a gate: ``RMS(x) * scale * silu(gate)``, or ``RMS(x * silu(gate)) * scale``.

    The two orders are different functions: only the second has rows of unit RMS.

    Args:
      x: ``[..., D]``, floating point.
      gate: of ``x``'s shape, before its activation.
      scale: ``[D]`` or None.
      norm_first: True for the first form (Qwen3-Next), False for the second (Mamba-2).
      groups: groups of the statistics, as in `grouped_rms_norm`.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype. One rounding; the models cast before they multiply.

    Raises:
      ValueError: if shapes differ, or ``groups`` does not divide D.

    Source: Dao and Gu 2024 (arXiv 2405.21060), and the Mamba-2 and Qwen3-Next models of
    huggingface/transformers.

    >>> import jax.numpy as jnp
    >>> x, gate = jnp.array([3.0, 3.0]), jnp.array([50.0, 50.0])
    >>> print(gated_rms_norm(x, gate, norm_first=True, epsilon=0.0).round(4))
    [50. 50.]
    >>> print(gated_rms_norm(x, gate, norm_first=False, epsilon=0.0).round(4))
    [1. 1.]
    """
    x = floating(x)
    dtype = statistics_dtype(x)
    check_alike("gate", gate, "x", x)
    check_kept("gate", gate, "x", dtype)
    wide, factor = x.astype(dtype), jax.nn.silu(jnp.asarray(gate, dtype))
    if norm_first:
        out = grouped_rms_norm(wide, scale, groups=groups, epsilon=epsilon) * factor
    else:
        out = grouped_rms_norm(wide * factor, scale, groups=groups, epsilon=epsilon)
    return out.astype(x.dtype)
