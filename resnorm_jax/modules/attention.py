"""Multi-head self-attention."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arrangements import Init
from resnorm_jax.modules.initializers import Initializers, branch_initializers
from resnorm_jax.ops.attention import masked_attention, rotate


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention, with flax.linen's parameter names and shapes.

    Attributes:
      heads: number of heads; must divide the width.
      dropout: dropout of the attention weights.
      rotary: whether positions enter by rotating queries and keys.
      use_bias: whether projections have a bias.
      kernel_inits: initializer of each role (query, key, value, out); None for Xavier uniform.
      implementation: passed to `jax.nn.dot_product_attention`.
      dtype: dtype of the computation; None for that of the input.
      param_dtype: dtype of the parameters.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2.2.
    """

    heads: int
    dropout: float = 0.0
    rotary: bool = False
    use_bias: bool = True
    kernel_inits: Initializers | None = None
    implementation: Literal["xla", "cudnn"] | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, *, deterministic: bool = True
    ) -> jax.Array:
        """Attend within ``x [B, L, D]``; ``mask`` broadcasts to ``[B, H, L, L]``, True = may look."""
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(f"heads={self.heads} does not divide width={width}")
        inits = self.kernel_inits or branch_initializers(Init(), {})
        options = {
            "use_bias": self.use_bias, "dtype": self.dtype, "param_dtype": self.param_dtype,
        }  # fmt: skip
        shape = (self.heads, width // self.heads)
        q_BxLxHxK, k_BxLxHxK, v_BxLxHxK = (
            nn.DenseGeneral(shape, kernel_init=inits[role], name=role, **options)(x)
            for role in ("query", "key", "value")
        )
        if self.rotary:
            positions = jnp.arange(x.shape[1])
            q_BxLxHxK, k_BxLxHxK = rotate(q_BxLxHxK, positions), rotate(k_BxLxHxK, positions)
        active = self.dropout > 0 and not deterministic
        y_BxLxHxK = masked_attention(
            q_BxLxHxK, k_BxLxHxK, v_BxLxHxK, mask,
            dropout_rate=self.dropout,
            dropout_key=self.make_rng("dropout") if active else None,
            implementation=self.implementation,
        )  # fmt: skip
        return nn.DenseGeneral(
            width, axis=(-2, -1), kernel_init=inits["out"], name="out", **options
        )(y_BxLxHxK)
