"""Norms as Flax modules: flax.linen's fields, parameter names and shapes, safer numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_axes, check_kept, check_numbers
from resnorm_jax.ops.norms import add_layer_norm, add_rms_norm, layer_norm, rms_norm
from resnorm_jax.ops.statistics import normalized_axes, statistics_dtype

Dtype = Any
Initializer = Callable[..., jax.Array]


class _Norm(nn.Module):
    """What LayerNorm and RMSNorm share: where parameters lie, and in which dtype results come."""

    def _place(self, parameter: str, init: Initializer, x: jax.Array) -> jax.Array:
        """Create a parameter over ``feature_axes`` and lay it along ``x``."""
        axes = normalized_axes(_tuple(self.feature_axes), x.ndim)
        value = self.param(parameter, init, tuple(x.shape[a] for a in axes), self.param_dtype)
        return value.reshape([n if a in axes else 1 for a, n in enumerate(x.shape)])

    def _input(self, x: jax.Array) -> jax.Array:
        """Return ``x`` in a dtype in which nothing of the result is lost before its own cast."""
        check_input(x)
        x = jnp.asarray(x)
        if jnp.iscomplexobj(x) and self.dtype is not None:
            check_kept("x", x, "dtype", self.dtype)
        if self.dtype is None and jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return x.astype(statistics_dtype(x))

    def _options(self, mask: jax.Array | None) -> dict[str, Any]:
        return {
            "axis": _tuple(self.reduction_axes),
            "epsilon": self.epsilon,
            "mask": mask,
            "axis_name": self.axis_name,
            "axis_index_groups": self.axis_index_groups,
            "scale_offset": self.scale_offset,
            "dtype": self.dtype,
        }


class LayerNorm(_Norm):
    """Layer norm, ``(x - mean) / sqrt(var + epsilon) * scale + bias``; drop-in for `flax.linen`'s.

    Same fields, parameter names and shapes, so that a checkpoint fits either. Two differences: the
    variance is always two-pass, and with ``dtype=None`` the result has the dtype of ``x`` (flax
    promotes bfloat16 inputs to the parameters' float32).

    Attributes:
      epsilon: added to the variance, inside the root.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
      use_bias: whether there is a bias.
      use_scale: whether there is a scale.
      bias_init: initializer of the bias.
      scale_init: initializer of the scale.
      reduction_axes: axes of the statistics.
      feature_axes: axes of the parameters.
      axis_name: mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.
      use_fast_variance: taken for compatibility and not used: the fast variance
        ``E[x^2] - E[x]^2`` loses all digits when the mean is large.
      force_float32_reductions: taken for compatibility; statistics are in float32 at least.
      scale_offset: added to the scale in float32; with 1.0 and ``scale_init=zeros`` the norm is
        zero-centred, so that weight decay pulls the factor to 1. Not in flax.

    Source: Ba et al. 2016 (arXiv 1607.06450), eq. 3-4.

    >>> import jax, jax.numpy as jnp
    >>> variables = LayerNorm().init(jax.random.key(0), jnp.ones((2, 3)))
    >>> jax.tree.map(jnp.shape, variables)
    {'params': {'bias': (3,), 'scale': (3,)}}
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    reduction_axes: int | Sequence[int] = -1
    feature_axes: int | Sequence[int] = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = False
    force_float32_reductions: bool = True
    scale_offset: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None, stream: bool = False) -> Any:
        """Normalize ``x``; ``mask`` (broadcastable to ``x``) is True where an element counts.

        With ``stream`` return ``x`` beside it, to be used further: the norm's backward pass then adds
        what comes of that to the gradient, as `resnorm_jax.add_layer_norm` does.
        """
        check_input(x)
        x = jnp.asarray(x)
        scale = self._place("scale", self.scale_init, x) if self.use_scale else None
        bias = self._place("bias", self.bias_init, x) if self.use_bias else None
        if stream:
            return add_layer_norm(x, None, scale, bias, **self._options(mask))
        return layer_norm(x, scale, bias, **self._options(mask))


class RMSNorm(_Norm):
    """RMS norm, ``x / sqrt(mean(x**2) + epsilon) * scale``; drop-in for `flax.linen`'s.

    Attributes: as `LayerNorm`'s, without the bias, and

      scale_offset: added to the scale in float32; with 1.0 and ``scale_init=zeros`` the norm is
        zero-centred, so that weight decay pulls the factor to 1. Not in flax.

    Source: Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4, epsilon inside the root.

    >>> import jax, jax.numpy as jnp
    >>> RMSNorm().init(jax.random.key(0), jnp.ones((2, 3)))["params"]["scale"].shape
    (3,)
    """

    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_scale: bool = True
    scale_init: Initializer = nn.initializers.ones
    reduction_axes: int | Sequence[int] = -1
    feature_axes: int | Sequence[int] = -1
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = False
    force_float32_reductions: bool = True
    scale_offset: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None, stream: bool = False) -> Any:
        """Normalize ``x``; ``mask`` and ``stream`` as in `LayerNorm`."""
        check_input(x)
        x = jnp.asarray(x)
        scale = self._place("scale", self.scale_init, x) if self.use_scale else None
        if stream:
            return add_rms_norm(x, None, scale, **self._options(mask))
        return rms_norm(x, scale, **self._options(mask))


def check_input(x: Any) -> None:
    """Check that ``x`` is ``[..., D]`` and of numbers."""
    check_numbers("x", x)
    check_axes(x=(x, "... D"))


def _tuple(axes: int | Sequence[int]) -> int | tuple[int, ...]:
    return axes if isinstance(axes, int) else tuple(axes)
