"""Norms with a projection of their own: adaptive ones, and a gated one."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_axes, check_real
from resnorm_jax.norms.layer import Dtype, Initializer
from resnorm_jax.ops.norms import (
    adaptive_layer_norm,
    adaptive_rms_norm,
    gated_rms_norm,
    split_modulation,
)
from resnorm_jax.ops.norms.adaptive import MODULATIONS
from resnorm_jax.ops.norms.operands import floating
from resnorm_jax.ops.statistics import statistics_dtype


class _Adaptive(nn.Module):
    """What the adaptive norms share: fields, and the projection of the condition."""

    epsilon: float = 1e-6
    scale_init: Initializer = nn.initializers.zeros
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def _wide(self, x: jax.Array) -> jax.Array:
        x = floating(x)
        return x.astype(statistics_dtype(x))

    def _modulate(self, condition: jax.Array | None, wide: jax.Array, parts: int) -> jax.Array:
        """Project the condition to ``[B, parts D]``; the last D features are the scale."""
        if condition is None:
            raise ValueError(f"{type(self).__name__} needs a condition [B, C], and was given none")
        check_real("condition", condition)
        check_axes(x=(wide, "B ... D"), condition=(condition, "B? C"))
        width = wide.shape[-1]

        def bias_init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            shift = jnp.zeros((shape[0] - width,), dtype)
            return jnp.concatenate([shift, self.scale_init(key, (width,), dtype)])

        return nn.Dense(
            parts * width,
            kernel_init=nn.initializers.zeros,
            bias_init=bias_init,
            dtype=wide.dtype,
            param_dtype=self.param_dtype,
            name="modulation",
        )(nn.silu(jnp.asarray(condition, wide.dtype)))


class AdaptiveLayerNorm(_Adaptive):
    """adaLN: layer norm without parameters, times ``1 + scale(c)``, plus ``shift(c)``.

    Shift and scale are one Dense of ``silu(condition)``, in that order, weight and bias zero at first:
    the norm then is plain layer norm.

    Attributes:
      epsilon: inside the root.
      scale_init: of the scale's bias; -1 makes the factor 0 at first.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.

    Source: Peebles and Xie 2022 (arXiv 2212.09748); facebookresearch/DiT models.py.

    >>> import jax, jax.numpy as jnp
    >>> x, condition = jnp.ones((2, 5, 4)), jnp.ones((2, 3))
    >>> variables = AdaptiveLayerNorm().init(jax.random.key(0), x, condition=condition)
    >>> variables["params"]["modulation"]["kernel"].shape
    (3, 8)
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, condition: jax.Array | None = None) -> jax.Array:
        """Normalize ``x [B, ..., D]`` for the condition ``[B, C]`` of each sample."""
        wide = self._wide(x)
        shift, scale = jnp.split(self._modulate(condition, wide, 2), 2, axis=-1)
        out = adaptive_layer_norm(wide, shift, scale, epsilon=self.epsilon)
        return out.astype(self.dtype or floating(x).dtype)


class AdaptiveRMSNorm(_Adaptive):
    """Adaptive RMS norm: RMS norm without parameters, times ``1 + scale(c)``.

    Attributes: as `AdaptiveLayerNorm`'s; the Dense of ``silu(condition)`` gives the scale alone.

    Source: as `AdaptiveLayerNorm`; see `resnorm_jax.ops.norms.adaptive_rms_norm`.

    >>> import jax, jax.numpy as jnp
    >>> x, condition = jnp.ones((2, 5, 4)), jnp.ones((2, 3))
    >>> variables = AdaptiveRMSNorm().init(jax.random.key(0), x, condition=condition)
    >>> variables["params"]["modulation"]["kernel"].shape
    (3, 4)
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, condition: jax.Array | None = None) -> jax.Array:
        """Normalize ``x [B, ..., D]`` for the condition ``[B, C]`` of each sample."""
        wide = self._wide(x)
        scale = self._modulate(condition, wide, 1)
        out = adaptive_rms_norm(wide, scale, epsilon=self.epsilon)
        return out.astype(self.dtype or floating(x).dtype)


class ZeroModulation(nn.Module):
    """adaLN-Zero's modulation of a block: six parts of one Dense of ``silu(condition)``, 0 at first.

    With a gate of 0 on each branch a block is the identity at first.

    Attributes:
      width: D, of the stream.
      dtype: dtype of the result; None for that of the condition.
      param_dtype: dtype of the parameters.

    Source: Peebles and Xie 2022 (arXiv 2212.09748); facebookresearch/DiT models.py.

    >>> import jax, jax.numpy as jnp
    >>> parts, _ = ZeroModulation(width=4).init_with_output(jax.random.key(0), jnp.ones((2, 3)))
    >>> list(parts)
    ['shift_msa', 'scale_msa', 'gate_msa', 'shift_mlp', 'scale_mlp', 'gate_mlp']
    """

    width: int
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, condition: jax.Array) -> dict[str, jax.Array]:
        """Map ``[B, C]`` to the parts by name, ``[B, D]`` each: see `split_modulation`."""
        condition = floating(condition, "condition")
        projected = nn.Dense(
            len(MODULATIONS) * self.width,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.zeros,
            dtype=self.dtype or condition.dtype,
            param_dtype=self.param_dtype,
            name="modulation",
        )(nn.silu(condition))
        return split_modulation(projected)


class GatedRMSNorm(nn.Module):
    """Gated RMS norm of a row by itself: ``RMS(x * silu(z)) * scale`` with ``z`` a Dense of ``x``.

    In Mamba-2 ``x`` is the output of the state-space layer, and ``z`` comes from the block's input
    projection; a norm that is given one row only makes ``z`` from it.

    Attributes:
      epsilon: inside the root.
      norm_first: True gates the normalized row, as Qwen3-Next does; see `gated_rms_norm`.
      scale_init: initializer of the scale.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.

    Source: Dao and Gu 2024 (arXiv 2405.21060); the Mamba-2 model of huggingface/transformers.

    >>> import jax, jax.numpy as jnp
    >>> variables = GatedRMSNorm().init(jax.random.key(0), jnp.ones((2, 3)))
    >>> jax.tree.map(jnp.shape, variables["params"])
    {'gate': {'kernel': (3, 3)}, 'scale': (3,)}
    """

    epsilon: float = 1e-6
    norm_first: bool = False
    scale_init: Initializer = nn.initializers.ones
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize ``x [..., D]``."""
        x = floating(x)
        wide = x.astype(statistics_dtype(x))
        width = x.shape[-1]
        gate = nn.Dense(
            width, use_bias=False, dtype=wide.dtype, param_dtype=self.param_dtype, name="gate"
        )(wide)
        scale = self.param("scale", self.scale_init, (width,), self.param_dtype)
        out = gated_rms_norm(wide, gate, scale, norm_first=self.norm_first, epsilon=self.epsilon)
        return out.astype(self.dtype or x.dtype)
