"""The position-wise feed-forward network."""

from collections.abc import Collection
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from resnorm_jax.arguments import check_axes, check_real
from resnorm_jax.modules.fields import Context, NumericFields, apply_norm
from resnorm_jax.modules.initializers import Initializers, branch_initializers
from resnorm_jax.modules.shared_input import projected
from resnorm_jax.ops.activations import ACTIVATIONS, Activation
from resnorm_jax.ops.projection import rows_dot_general
from resnorm_jax.planning import FeedForwardPlan
from resnorm_jax.planning.form import FEED_FORWARD_ROLES


class FeedForward(NumericFields):
    """``W2 act(W1 x + b1) + b2``, or ``W2 (act(W1 x + b1) * (Wg x + bg)) + b2`` when gated.

    Attributes:
      mlp_width: width inside.
      activation: a row of `ACTIVATIONS`.
      dropout: dropout of the activations.
      use_bias: whether projections have a bias, or the roles whose projections do.
      kernel_inits: initializer of the roles fc1 (the gate's too) and fc2; None for Xavier uniform.
      plan: norm before the last projection, and nGPT's factors, where an arrangement has them.
      axis_name: mapped axis over which the batch is spread, for norms across rows.
      dtype: dtype of the computation; None for that of the input.
      param_dtype: dtype of the parameters.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 2.
    """

    mlp_width: int
    activation: str | Activation = "gelu"
    dropout: float = 0.0
    use_bias: bool | Collection[str] = True
    kernel_inits: Initializers | None = None
    plan: FeedForwardPlan = FeedForwardPlan()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, context: Context | None = None, deterministic: bool = True
    ) -> jax.Array:
        """Map ``x [..., D]`` to the same shape; ``context`` is what the norm inside may ask for."""
        check_real("x", x)
        check_axes(x=(x, "... D"))
        inits = self.kernel_inits or branch_initializers(self.plan.distribution, self.plan.roles)
        dense = partial(
            nn.Dense,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            dot_general=rows_dot_general,
        )
        activation = ACTIVATIONS.get(self.activation)
        # Only the pre-activation is kept for the backward pass: a scanned stack would write every
        # array of gelu's derivative to memory, at mlp_width, and be slower for it.
        function = jax.checkpoint(activation.function, prevent_cse=False)
        biased = FEED_FORWARD_ROLES if self.use_bias is True else self.use_bias or ()
        first: dict[str, Any] = {"use_bias": "fc1" in biased, "kernel_init": inits["fc1"]}
        names = ["fc1", "gate"] if activation.gated else ["fc1"]
        h, *gate = projected([dense(self.mlp_width, name=n, **first) for n in names], x)
        if gate:
            h = function(self._scaled("fc1_scale", h, x.shape[-1] ** 0.5))
            h = h * self._scaled("gate_scale", gate[0], 1.0)
        else:
            h = function(self._scaled("fc1_scale", h, x.shape[-1] ** 0.5))
        h = apply_norm(self.plan.mlp_norm, h, self.numerics, context or {})
        h = nn.Dropout(self.dropout)(h, deterministic=deterministic)
        last: dict[str, Any] = {"use_bias": "fc2" in biased, "kernel_init": inits["fc2"]}
        return dense(x.shape[-1], name="fc2", **last)(h)

    def _scaled(self, name: str, h: jax.Array, factor: float) -> jax.Array:
        """``h s factor`` with a learned s of the width inside (arXiv 2410.01131, eq. 20-21)."""
        if not self.plan.mlp_scale:
            return h
        init = nn.initializers.ones
        scale = self.param(name, init, (h.shape[-1],), self.param_dtype)
        return h * (scale * factor).astype(h.dtype)
