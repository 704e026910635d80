"""The position-wise feed-forward network."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arrangements import Init
from resnorm_jax.modules.initializers import Initializers, branch_initializers
from resnorm_jax.registry import Registry


@dataclass(frozen=True)
class Activation:
    """A feed-forward network's activation; ``gated`` ones multiply it by a second projection."""

    name: str
    function: Callable[[jax.Array], jax.Array]
    gated: bool
    source: str


ACTIVATIONS: Registry[Activation] = Registry(
    "activation",
    (
        Activation("relu", jax.nn.relu, False, "Vaswani et al. 2017 (arXiv 1706.03762), eq. 2"),
        Activation(
            "gelu",
            partial(jax.nn.gelu, approximate=False),
            False,
            "Hendrycks and Gimpel 2016 (arXiv 1606.08415), exact",
        ),
        Activation("swiglu", jax.nn.silu, True, "Shazeer 2020 (arXiv 2002.05202), eq. 6"),
    ),
)


class FeedForward(nn.Module):
    """``W2 act(W1 x + b1) + b2``, or ``W2 (act(W1 x + b1) * (Wg x + bg)) + b2`` when gated.

    Attributes:
      mlp_width: width inside.
      activation: a row of `ACTIVATIONS`.
      dropout: dropout of the activations.
      use_bias: whether projections have a bias.
      kernel_inits: initializer of the roles fc1 (the gate's too) and fc2; None for Xavier uniform.
      dtype: dtype of the computation; None for that of the input.
      param_dtype: dtype of the parameters.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 2.
    """

    mlp_width: int
    activation: str | Activation = "gelu"
    dropout: float = 0.0
    use_bias: bool = True
    kernel_inits: Initializers | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Map ``x [..., D]`` to the same shape."""
        inits = self.kernel_inits or branch_initializers(Init(), {})
        dense = partial(
            nn.Dense, use_bias=self.use_bias, dtype=self.dtype, param_dtype=self.param_dtype
        )
        activation = ACTIVATIONS.get(self.activation)
        # Only the pre-activation is kept for the backward pass: a scanned stack would write every
        # array of gelu's derivative to memory, at mlp_width, and be slower for it.
        function = jax.checkpoint(activation.function, prevent_cse=False)
        h = function(dense(self.mlp_width, kernel_init=inits["fc1"], name="fc1")(x))
        if activation.gated:
            h = h * dense(self.mlp_width, kernel_init=inits["fc1"], name="gate")(x)
        h = nn.Dropout(self.dropout)(h, deterministic=deterministic)
        return dense(x.shape[-1], kernel_init=inits["fc2"], name="fc2")(h)
