"""Norms whose scale and shift come from a condition, a class or a noise level for instance."""

import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_axes, check_kept, check_real
from resnorm_jax.errors import ShapeError
from resnorm_jax.ops.norms.core import layer_norm, rms_norm
from resnorm_jax.ops.norms.operands import floating
from resnorm_jax.ops.statistics import statistics_dtype

# The order in which DiT's last projection holds them.
MODULATIONS = ("shift_msa", "scale_msa", "gate_msa", "shift_mlp", "scale_mlp", "gate_mlp")


def adaptive_layer_norm(
    x: jax.Array, shift: jax.Array, scale: jax.Array, *, epsilon: float = 1e-6
) -> jax.Array:
    """Adaptive layer norm: ``(x - mean) / sqrt(var + epsilon) * (1 + scale) + shift``, by sample.

    Args:
      x: ``[B, ..., D]``, floating point.
      shift: ``[B, D]`` or ``[1, D]``, the same at every position of a sample.
      scale: likewise; 0 leaves the factor at 1.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: if ``shift`` or ``scale`` has no row for each sample.

    Source: Peebles and Xie 2022 (arXiv 2212.09748); facebookresearch/DiT, ``modulate``.

    >>> import jax.numpy as jnp
    >>> ones = jnp.ones((1, 2))
    >>> print(adaptive_layer_norm(jnp.array([[1.0, 3.0]]), ones, ones).round(4))
    [[-1.  3.]]
    """
    x = floating(x)
    normed = layer_norm(x, epsilon=epsilon, dtype=statistics_dtype(x))
    shift, scale = _by_sample(shift, normed, "shift"), _by_sample(scale, normed, "scale")
    return (normed * (1 + scale) + shift).astype(x.dtype)


def adaptive_rms_norm(x: jax.Array, scale: jax.Array, *, epsilon: float = 1e-6) -> jax.Array:
    """Adaptive RMS norm: ``x / sqrt(mean(x**2) + epsilon) * (1 + scale)``, by sample.

    Args:
      x: ``[B, ..., D]``, floating point.
      scale: ``[B, D]`` or ``[1, D]``; 0 leaves the factor at 1.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: if ``scale`` has no row for each sample.

    Source: as `adaptive_layer_norm`, without mean and shift; the Voxtral Realtime model of
    huggingface/transformers has this factor.
    """
    x = floating(x)
    normed = rms_norm(x, epsilon=epsilon, dtype=statistics_dtype(x))
    return (normed * (1 + _by_sample(scale, normed, "scale"))).astype(x.dtype)


def split_modulation(modulation: jax.Array) -> dict[str, jax.Array]:
    """Split a block's modulation ``[B, 6 D]`` into its six parts of ``[B, D]``, in DiT's order.

    Args:
      modulation: ``[B, 6 D]``, the last projection of the condition.

    Returns:
      ``shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp`` by name. A sublayer is
      ``x + gate * f(adaptive_layer_norm(x, shift, scale))``: the identity where all parts are 0.

    Raises:
      ValueError: if the last axis is no multiple of six.

    Source: Peebles and Xie 2022 (arXiv 2212.09748), adaLN-Zero; facebookresearch/DiT.

    >>> import jax.numpy as jnp
    >>> float(split_modulation(jnp.arange(6.0)[None])["gate_msa"][0, 0])
    2.0
    """
    check_real("modulation", modulation)
    check_axes(modulation=(modulation, "... W"))
    if modulation.shape[-1] % len(MODULATIONS):
        raise ShapeError(f"modulation has {modulation.shape[-1]} features: must be 6 times a width")
    return dict(zip(MODULATIONS, jnp.split(modulation, len(MODULATIONS), axis=-1), strict=True))


def _by_sample(value: jax.Array, x: jax.Array, name: str) -> jax.Array:
    """Lay ``[B, D]`` along the first and last axes of ``x``, in ``x``'s dtype."""
    check_axes(x=(x, "B ... D"), **{name: (value, "B? D")})
    check_kept(name, value, "x", x.dtype)
    value = jnp.asarray(value, x.dtype)
    return value.reshape((value.shape[0],) + (1,) * (x.ndim - 2) + (value.shape[1],))
