"""The article's listings L1 to L4: a residual block, a layer norm, a layer, a model."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_axes, check_width
from resnorm_jax.article.linear import attention_inits, linear
from resnorm_jax.modules.attention import MultiHeadAttention
from resnorm_jax.norms.layer import LayerNorm
from resnorm_jax.ops.activations import ACTIVATIONS
from resnorm_jax.ops.masks import attention_mask, zero_padding
from resnorm_jax.ops.norms import std_layer_norm
from resnorm_jax.ops.residual import residual

TORCH_EPSILON = 1e-5  # of torch.nn.LayerNorm, which the listings use


class ResidualBlock(nn.Module):
    """L1, section 3.2: ``x + Dropout(LayerNorm(Linear(ReLU(Linear(x)))))``.

    Attributes:
      d_model: width D of ``x [..., D]``; both linear layers keep it.
      dropout: rate of the branch's dropout.
      epsilon: of the norm, inside the root; `torch.nn.LayerNorm`'s.

    >>> import jax, jax.numpy as jnp
    >>> block, x = ResidualBlock(d_model=4), jnp.ones((2, 4))
    >>> block.apply(block.init(jax.random.key(0), x), x).shape
    (2, 4)
    """

    d_model: int
    dropout: float = 0.1
    epsilon: float = TORCH_EPSILON

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool = True) -> jax.Array:
        """Run the block on ``x [..., D]``; ``deterministic=False`` needs an rng ``dropout``."""
        check_width("x", x, "d_model", self.d_model)
        h = jax.nn.relu(linear(self.d_model, self.d_model, "linear1")(x))
        h = linear(self.d_model, self.d_model, "linear2")(h)
        h = LayerNorm(epsilon=self.epsilon, name="layer_norm")(h)
        return residual(x, nn.Dropout(self.dropout)(h, deterministic=deterministic))


class LayerNormalization(nn.Module):
    """L2, section 3.3, formula A4: ``gamma (x - mean) / (std + epsilon) + beta``.

    Not the layer norm of Ba et al. (`rn.LayerNorm`): ``std`` is unbiased, and epsilon is added outside
    the root.

    Attributes:
      d_model: width D of ``x [..., D]``.
      epsilon: added to the deviation.

    >>> import jax, jax.numpy as jnp
    >>> norm, x = LayerNormalization(d_model=5), jnp.arange(1.0, 6)
    >>> print(norm.apply(norm.init(jax.random.key(0), x), x).round(4))
    [-1.2649 -0.6325  0.      0.6325  1.2649]
    """

    d_model: int
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalize ``x [..., D]``."""
        check_width("x", x, "d_model", self.d_model)
        gamma = self.param("gamma", nn.initializers.ones, (self.d_model,))
        beta = self.param("beta", nn.initializers.zeros, (self.d_model,))
        return std_layer_norm(x, gamma, beta, epsilon=self.epsilon)


class TransformerLayer(nn.Module):
    """L3, section 5.2: attention and two linear layers, each added and then normalized.

    ::

        x = LayerNorm(x + Dropout(Attention(x)))
        x = LayerNorm(x + Dropout(Linear(Dropout(activation(Linear(x))))))

    Attributes:
      d_model: width D.
      nhead: heads; must divide the width.
      dropout: rate of all three dropouts.
      activation: None is nothing between the linear layers, as printed; ``"relu"`` is as the
        article's text says. Any row of `FeedForward`'s table that has no gate.
      epsilon: of the norms, inside the root.

    >>> import jax, jax.numpy as jnp
    >>> layer, x = TransformerLayer(d_model=8, nhead=2), jnp.ones((2, 5, 8))
    >>> layer.apply(layer.init(jax.random.key(0), x), x).shape
    (2, 5, 8)
    """

    d_model: int
    nhead: int
    dropout: float = 0.1
    activation: str | None = None
    epsilon: float = TORCH_EPSILON

    @nn.compact
    def __call__(
        self,
        src: jax.Array,
        src_mask: jax.Array | None = None,
        src_key_padding_mask: jax.Array | None = None,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        """Run the layer; the masks have PyTorch's meanings, the reverse of this library's.

        Args:
          src: ``[B, L, D]``.
          src_mask: boolean ``[L, L]`` or ``[B, L, L]``, True where a query may *not* look.
          src_key_padding_mask: boolean ``[B, L]``, True where a position is *padding*. Padded
            positions are read as zeros, whatever stands there, NaN too.
          deterministic: True turns dropout off.

        Returns:
          ``[B, L, D]``; what it holds at padded positions has no meaning.

        Raises:
          TypeError: if a mask is not boolean (PyTorch adds masks of numbers to the logits).
        """
        check_axes(
            src=(src, "B L D"),
            src_mask=(src_mask, "... L L"),
            src_key_padding_mask=(src_key_padding_mask, "B L"),
        )
        check_width("src", src, "d_model", self.d_model)
        valid = _reversed("src_key_padding_mask", src_key_padding_mask)
        allowed = attention_mask(valid, _reversed("src_mask", src_mask))
        drop = nn.Dropout(self.dropout, deterministic=deterministic)
        src = zero_padding(src, valid)
        attention = MultiHeadAttention(
            self.nhead, kernel_inits=attention_inits(self.d_model), name="self_attn"
        )
        x = residual(src, drop(attention(src, allowed, deterministic=deterministic)))
        x = LayerNorm(epsilon=self.epsilon, name="norm1")(x)
        h = linear(self.d_model, self.d_model, "linear1")(x)
        if self.activation is not None:
            h = _ungated(self.activation)(h)
        h = linear(self.d_model, self.d_model, "linear2")(drop(h))
        return LayerNorm(epsilon=self.epsilon, name="norm2")(residual(x, drop(h)))


class Transformer(nn.Module):
    """L4, section 5.2: ``num_layers`` of `TransformerLayer`, then a linear layer D to D.

    Attributes: as `TransformerLayer`'s, and

      num_layers: how many.

    >>> import jax, jax.numpy as jnp
    >>> model, x = Transformer(d_model=8, nhead=2, num_layers=2), jnp.ones((2, 5, 8))
    >>> model.apply(model.init(jax.random.key(0), x), x).shape
    (2, 5, 8)
    """

    d_model: int = 512
    nhead: int = 8
    num_layers: int = 3
    dropout: float = 0.1
    activation: str | None = None
    epsilon: float = TORCH_EPSILON

    @nn.compact
    def __call__(
        self,
        src: jax.Array,
        src_mask: jax.Array | None = None,
        src_key_padding_mask: jax.Array | None = None,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        """Run the model on ``src [B, L, D]``; arguments and result as in `TransformerLayer`."""
        for n in range(self.num_layers):
            src = TransformerLayer(
                self.d_model, self.nhead, self.dropout, self.activation, self.epsilon,
                name=f"layers_{n}",
            )(src, src_mask, src_key_padding_mask, deterministic=deterministic)  # fmt: skip
        return linear(self.d_model, self.d_model, "fc")(src)


def _reversed(name: str, mask: jax.Array | None) -> jax.Array | None:
    """From PyTorch's masks, True where not to look, to this library's."""
    if mask is None:
        return None
    mask = jnp.asarray(mask)
    if mask.dtype != bool:
        raise TypeError(f"{name} is {mask.dtype}: give booleans, True where not to look")
    return ~mask


def _ungated(name: str):
    row = ACTIVATIONS.get(name)
    if row.gated:
        raise ValueError(f"activation={name!r} has a gate, for which the listing has no weights")
    return row.function
