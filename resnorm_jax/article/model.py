"""The article's listing L5, so that it runs."""

import flax.linen as nn
import jax

from resnorm_jax.arguments import check_axes, check_real
from resnorm_jax.article.linear import attention_inits, linear
from resnorm_jax.modules.attention import MultiHeadAttention
from resnorm_jax.norms.layer import LayerNorm
from resnorm_jax.ops.residual import residual


class TransformerModel(nn.Module):
    """L5, section 5.2: a "residual projection", attention without a skip, a feed-forward, a classifier.

    ::

        x = norm1(shortcut(x) + Linear(ReLU(Linear(x))))
        x = norm2(Attention(x))                     # no skip around attention, as printed
        x = norm2(x + Linear(ReLU(Linear(x))))      # the same norm2 again, as printed
        y = classifier(x)

    As printed it cannot run: it adds ``x [32, 100]`` to a branch ``[32, 512]``, and its attention
    reads the batch as one sequence of 32 positions. Here a linear ``shortcut`` without bias stands on
    the skip where widths differ (He et al. 2015, arXiv 1512.03385, eq. 2), and each row of a batch
    is a sequence of one position, so that no row sees another.

    Attributes:
      input_dim: width of ``x``.
      hidden_dim: width inside.
      output_dim: classes.
      nhead: heads; must divide the width inside.
      epsilon: of the norms, inside the root.

    >>> import jax, jax.numpy as jnp
    >>> model, x = TransformerModel(input_dim=6, hidden_dim=8, output_dim=3), jnp.ones((32, 6))
    >>> model.apply(model.init(jax.random.key(0), x), x).shape
    (32, 3)
    """

    input_dim: int = 100
    hidden_dim: int = 512
    output_dim: int = 10
    nhead: int = 4
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map ``x [B, input_dim]`` or ``[B, L, input_dim]`` to logits ``[..., output_dim]``."""
        check_real("x", x)
        check_axes(x=(x, "B I" if x.ndim < 3 else "B L I"))
        width = self.hidden_dim
        h = jax.nn.relu(linear(width, self.input_dim, "projection1")(x))
        h = linear(width, width, "projection2")(h)
        if self.input_dim != width:
            x = linear(width, self.input_dim, "shortcut", use_bias=False)(x)
        x = LayerNorm(epsilon=self.epsilon, name="norm1")(residual(x, h))
        norm2 = LayerNorm(epsilon=self.epsilon, name="norm2")
        x = norm2(self._attend(x))
        h = linear(width, width, "fc2")(jax.nn.relu(linear(width, width, "fc1")(x)))
        return linear(self.output_dim, width, "classifier")(norm2(residual(x, h)))

    def _attend(self, x: jax.Array) -> jax.Array:
        attention = MultiHeadAttention(
            self.nhead, kernel_inits=attention_inits(self.hidden_dim), name="attention"
        )
        return attention(x) if x.ndim == 3 else attention(x[:, None])[:, 0]
