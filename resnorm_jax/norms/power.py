"""Power norm as a Flax module."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask, check_fits, check_real
from resnorm_jax.norms.layer import Dtype, Initializer, _Norm
from resnorm_jax.ops.layout import mapped_axes
from resnorm_jax.ops.norms.batch import norm_by_statistics
from resnorm_jax.ops.norms.core import rms_norm
from resnorm_jax.ops.norms.operands import affine
from resnorm_jax.ops.norms.power import power_scale
from resnorm_jax.ops.statistics import masked_mean, statistics_dtype

# Flax's name for variables whose gradient is their next value (flax.linen.fp8_ops).
OVERWRITE = "_overwrite_with_gradient"


class PowerNorm(_Norm):
    """Power norm, ``u / psi * scale + bias`` with ``u = x / rms(x)``, psi^2 a running mean square.

    Each row is divided by its own rms first, then each feature by the root of its mean square: of
    the batch in the first ``warmup`` updates, then the running one as it was before the batch. The
    gradient is the approximate one of `power_scale`, reverse mode only.

    State: ``batch_stats`` with ``square`` (the running mean square) and ``count`` (updates done),
    and ``nu`` in the collection ``_overwrite_with_gradient``: differentiate with respect to it, and
    its gradient, for the *sum* of the losses over rows, is its next value. The trainer does so.

    Attributes:
      epsilon: added to every mean square, inside the root.
      momentum: share of the running mean square that an update keeps.
      backward_momentum: share of ``nu`` that an update keeps.
      warmup: updates that divide by the batch's own mean square.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
      bias_init: initializer of the bias.
      scale_init: initializer of the scale.
      axis_name: mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.

    Source: Shen et al. 2020 (arXiv 2003.07845), as in sIncerass/powernorm, mask_powernorm.py, with
    one group. In the warm-up that code averages twice (equal weights, then momentum), and after it
    the gradient is divided by the *batch's* root mean square: so here. There padding enters ``nu``;
    here it does not.

    >>> import jax, jax.numpy as jnp
    >>> variables = PowerNorm().init(jax.random.key(0), jnp.ones((2, 3)))
    >>> sorted(variables)
    ['_overwrite_with_gradient', 'batch_stats', 'params']
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    backward_momentum: float = 0.9
    warmup: int = 10_000
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    bias_init: Initializer = nn.initializers.zeros
    scale_init: Initializer = nn.initializers.ones
    axis_name: str | None = None
    axis_index_groups: Any = None

    @property
    def feature_axes(self) -> int:
        """The last axis holds the features."""
        return -1

    @nn.compact
    def __call__(
        self, x: jax.Array, *, mask: jax.Array | None = None, deterministic: bool = True
    ) -> jax.Array:
        """Normalize ``x [..., D]``; ``mask [...]`` is True where a position is valid."""
        check_real("x", x)
        mask, x = as_mask("mask", mask), self._input(x)
        check_fits("mask", mask, x.shape[:-1], "x without its last axis")
        width = x.shape[-1]
        square = self.variable("batch_stats", "square", jnp.ones, (width,), jnp.float32)
        count = self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32)
        nu = self.variable(OVERWRITE, "nu", jnp.zeros, (width,), jnp.float32)
        scale = self._place("scale", self.scale_init, x)
        bias = self._place("bias", self.bias_init, x)
        valid = None if mask is None else mask[..., None]
        dtype, wide = self.dtype or x.dtype, x.astype(statistics_dtype(x))
        # Row by row, so that no row without a valid element comes near a root of zero.
        row_mask = None if valid is None else jnp.broadcast_to(valid, x.shape)
        u = rms_norm(wide, epsilon=self.epsilon, mask=row_mask)
        if deterministic:
            out = norm_by_statistics(
                u, None, square.value, scale, bias, epsilon=self.epsilon, mask=valid
            )
            return out.astype(dtype)
        axes = tuple(range(x.ndim - 1))
        name = None if self.is_initializing() else mapped_axes(self.axis_name)
        shared = name, self.axis_index_groups
        batch = jax.lax.stop_gradient(masked_mean(u * u, valid, axes, *shared))
        used = jnp.where(count.value < self.warmup, batch, square.value.astype(u.dtype))
        z = power_scale(
            u, valid, used, batch, nu.value.astype(u.dtype).reshape(batch.shape),
            self.backward_momentum, axes, self.epsilon, *shared,
        )  # fmt: skip
        if not self.is_initializing():
            self._move(square, count, batch.reshape(-1), valid, shared)
        out = affine(z, scale, bias, (x.ndim - 1,))
        return (out if valid is None else jnp.where(valid, out, 0)).astype(dtype)

    def _move(self, square, count, batch, valid, shared) -> None:
        """Update the running mean square and the count, unless no position is valid."""
        seen = jnp.bool_(True) if valid is None else jnp.sum(valid) > 0
        if valid is not None and shared[0] is not None:
            name, groups = shared
            seen = jax.lax.psum(seen.astype(jnp.int32), name, axis_index_groups=groups) > 0
        old, number = square.value, count.value + 1
        equal = old + (batch - old) / number  # in the warm-up: the mean of all batches so far
        old = jnp.where(number < self.warmup, equal, old)
        new = self.momentum * old + (1 - self.momentum) * batch
        square.value = jnp.where(seen, new, square.value).astype(square.value.dtype)
        count.value = jnp.where(seen, number, count.value)
