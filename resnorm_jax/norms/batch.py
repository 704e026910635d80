"""Group and batch norm as Flax modules: flax.linen's fields, names and shapes, safer numbers."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask
from resnorm_jax.norms.layer import Dtype, Initializer, _Norm
from resnorm_jax.ops.layout import mapped_axes
from resnorm_jax.ops.norms.batch import batch_norm, batch_statistics, norm_by_statistics
from resnorm_jax.ops.norms.group import group_norm
from resnorm_jax.ops.statistics import normalized_axes


class GroupNorm(_Norm):
    """Group norm, layer norm of each group of features; drop-in for `flax.linen`'s.

    Same fields, parameter names and shapes. Differences, as in `LayerNorm`: the variance is always
    two-pass, ``dtype=None`` gives the dtype of ``x``, masked elements come out as zero, and across
    devices masked elements are counted (flax takes the mean of the devices' means).

    Attributes:
      num_groups: number of groups, or None with ``group_size``.
      group_size: features of a group, or None.
      epsilon: added to the variance, inside the root.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
      use_bias: whether there is a bias.
      use_scale: whether there is a scale.
      bias_init: initializer of the bias.
      scale_init: initializer of the scale.
      reduction_axes: axes of the statistics, the last among them; None for all but the first.
      axis_name: mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.
      use_fast_variance: taken for compatibility and not used.
      force_float32_reductions: taken for compatibility; statistics are in float32 at least.

    Source: Wu and He 2018 (arXiv 1803.08494).

    >>> import jax, jax.numpy as jnp
    >>> variables = GroupNorm(num_groups=2).init(jax.random.key(0), jnp.ones((2, 3, 4)))
    >>> jax.tree.map(jnp.shape, variables)
    {'params': {'bias': (4,), 'scale': (4,)}}
    """

    num_groups: int | None = 32
    group_size: int | None = None
    epsilon: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    reduction_axes: int | Sequence[int] | None = None
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = False
    force_float32_reductions: bool = True

    @property
    def feature_axes(self) -> int:
        """The last axis holds the features."""
        return -1

    @nn.compact
    def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
        """Normalize ``x [B, ..., D]``; ``mask`` (broadcastable) is True where an element counts."""
        x = self._input(x)
        scale = self._place("scale", self.scale_init, x) if self.use_scale else None
        bias = self._place("bias", self.bias_init, x) if self.use_bias else None
        out = group_norm(
            x, scale, bias, groups=self._groups(x.shape[-1]), axis=_axes(self.reduction_axes),
            epsilon=self.epsilon, mask=mask, axis_name=_mapped(self),
            axis_index_groups=self.axis_index_groups,
        )  # fmt: skip
        return out.astype(self.dtype or x.dtype)

    def _groups(self, features: int) -> int:
        if (self.num_groups is None) == (self.group_size is None):
            raise ValueError("give one of num_groups and group_size, and None for the other")
        if self.num_groups is not None:
            return self.num_groups
        size = self.group_size or 0
        if size < 1 or features % size:
            raise ValueError(f"groups of {size} do not divide {features} features")
        return features // size


class BatchNorm(_Norm):
    """Batch norm, ``(x - mean_B) / sqrt(var_B + epsilon) * scale + bias``; as `flax.linen`'s.

    Same fields, parameter names and shapes, and collection ``batch_stats`` (``mean``, ``var``).
    Differences: as `GroupNorm`'s, and a batch without a valid element leaves the running statistics
    as they are. The running variance is the biased one, as in flax (torch's is unbiased, larger by
    ``n / (n - 1)``); ``momentum`` is the share that is kept (torch's is the share that is new).

    Attributes:
      use_running_average: whether the running statistics are used; here or in the call.
      axis: axis or axes of the features; statistics run over all others.
      momentum: share of the running statistics that an update keeps.
      epsilon: added to the variance, inside the root.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
      use_bias: whether there is a bias.
      use_scale: whether there is a scale.
      bias_init: initializer of the bias.
      scale_init: initializer of the scale.
      axis_name: mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.
      use_fast_variance: taken for compatibility and not used.
      force_float32_reductions: taken for compatibility; statistics are in float32 at least.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167).

    >>> import jax, jax.numpy as jnp
    >>> norm = BatchNorm(use_running_average=False)
    >>> jax.tree.map(jnp.shape, norm.init(jax.random.key(0), jnp.ones((2, 3))))
    {'batch_stats': {'mean': (3,), 'var': (3,)}, 'params': {'bias': (3,), 'scale': (3,)}}
    """

    use_running_average: bool | None = None
    axis: int | Sequence[int] = -1
    momentum: float = 0.99
    epsilon: float = 1e-5
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    use_bias: bool = True
    use_scale: bool = True
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None
    use_fast_variance: bool = False
    force_float32_reductions: bool = True

    @property
    def feature_axes(self) -> int | Sequence[int]:
        """The axes of the parameters."""
        return self.axis

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalize ``x``; ``mask`` (broadcastable to ``x``) is True where an element counts."""
        running = nn.merge_param(
            "use_running_average", self.use_running_average, use_running_average
        )
        x = self._input(x)
        features = normalized_axes(_axes(self.axis), x.ndim)
        axes = tuple(a for a in range(x.ndim) if a not in features)
        shape = tuple(x.shape[a] for a in features)
        kind = jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, kind)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self._place("scale", self.scale_init, x) if self.use_scale else None
        bias = self._place("bias", self.bias_init, x) if self.use_bias else None
        options: dict[str, Any] = {"axis": axes, "epsilon": self.epsilon, "mask": mask}
        if running:
            out = norm_by_statistics(x, mean.value, variance.value, scale, bias, **options)
            return out.astype(self.dtype or x.dtype)
        shared: dict[str, Any] = {
            "axis_name": _mapped(self),
            "axis_index_groups": self.axis_index_groups,
        }
        if not self.is_initializing():
            *new, seen = batch_statistics(x, axis=axes, mask=mask, **shared)
            for variable, value in zip((mean, variance), new, strict=True):
                variable.value = moved(variable.value, value, self.momentum, seen)
        out = batch_norm(x, scale, bias, **options, **shared)
        return out.astype(self.dtype or x.dtype)


class SequenceBatchNorm(BatchNorm):
    """`BatchNorm` as a norm of sequences: ``norm(x [B, L, D], mask=[B, L], deterministic=...)``.

    Statistics run over all valid positions of all rows; the running ones are used where
    ``deterministic``.
    """

    def __call__(  # type: ignore[override]
        self, x: jax.Array, *, mask: jax.Array | None = None, deterministic: bool = True
    ) -> jax.Array:
        """Normalize ``x [..., D]``; ``mask [...]`` is True where a position is valid."""
        mask = as_mask("mask", mask)
        return super().__call__(x, deterministic, mask=None if mask is None else mask[..., None])


def moved(old: jax.Array, new: jax.Array, momentum: float, seen: jax.Array) -> jax.Array:
    """Return ``momentum old + (1 - momentum) new``, in ``old``'s dtype; ``old`` where none is seen.

    A real ``old`` becomes complex where ``new`` is.
    """
    new = jax.lax.stop_gradient(new)
    old = old.astype(new.dtype) if jnp.iscomplexobj(new) and not jnp.iscomplexobj(old) else old
    return jnp.where(seen, momentum * old + (1 - momentum) * new, old).astype(old.dtype)


def _mapped(module: Any) -> Any:
    """Return the axis over devices; while parameters are made there may be none."""
    return None if module.is_initializing() else mapped_axes(module.axis_name)


def _axes(axes: int | Sequence[int] | None) -> Any:
    return axes if axes is None or isinstance(axes, int) else tuple(axes)
