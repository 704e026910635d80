"""The Transformer decoder: causal self-attention, cross-attention and feed-forward."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask, check_axes, check_real, deprecated
from resnorm_jax.modules.encoder import check_sequence
from resnorm_jax.modules.layer import Given, TransformerLayer
from resnorm_jax.modules.stack import TransformerStack
from resnorm_jax.ops.masks import attention_mask as join_masks
from resnorm_jax.ops.masks import causal_mask, masked_row_mean, zero_padding
from resnorm_jax.planning.resolve import with_cross_attention
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.spec import Arrangement


class TransformerDecoderLayer(TransformerLayer):
    """Causal self-attention, cross-attention and feed-forward, each a residual block.

    Attributes: as `TransformerEncoderLayer`'s. The arrangement's row as it stands holds for all three
    sublayers: cross-attention follows self-attention. For constants of an encoder-decoder give a
    ``place`` with ``stack="decoder"`` and the encoder's layers as ``other``.

    Equal to `torch.nn.TransformerDecoderLayer` with ``norm_first=False`` for ``post_ln`` and
    ``norm_first=True`` for ``pre_ln``.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1.

    >>> import jax, jax.numpy as jnp
    >>> layer = TransformerDecoderLayer(heads=2)
    >>> x, memory = jnp.ones((1, 5, 8)), jnp.ones((1, 3, 8))
    >>> layer.apply(layer.init(jax.random.key(0), x, memory), x, memory).shape
    (1, 5, 8)
    """

    @property
    def row(self) -> Arrangement:
        """The arrangement, with cross-attention."""
        return with_cross_attention(super().row)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        *,
        attention_mask: jax.Array | None = None,
        condition: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Run the layer on ``x [B, T, D]``; arguments as in `TransformerDecoder`."""
        x, given = _given(x, memory, mask, memory_mask, attention_mask, condition, deterministic)
        return self.run(x, given)


class TransformerDecoder(TransformerStack, kw_only=True):
    """A stack of `TransformerDecoderLayer`, then the arrangement's final norm if it has one.

    Attributes: as `TransformerEncoder`'s, and

      encoder_depth: layers of the encoder that is read, for constants that depend on both; 0 for a
        decoder alone.
      cross: whether layers attend to an encoder's output; False makes a decoder-only stack.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.1.

    >>> import jax, jax.numpy as jnp
    >>> decoder = TransformerDecoder(depth=2, heads=2, arrangement="deepnorm", encoder_depth=6)
    >>> x, memory = jnp.ones((1, 5, 8)), jnp.ones((1, 3, 8))
    >>> decoder.apply(decoder.init(jax.random.key(0), x, memory), x, memory).shape
    (1, 5, 8)
    """

    encoder_depth: int = 0
    cross: bool = True

    @property
    def beside(self) -> Place:
        """Which stack this is, and how many layers the other has."""
        return Place(stack="decoder", other=self.encoder_depth)

    @property
    def cross_attention(self) -> bool:
        """Whether each layer attends to another sequence too."""
        return self.cross

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array | None = None,
        mask: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        *,
        attention_mask: jax.Array | None = None,
        condition: jax.Array | None = None,
        deterministic: bool = True,
        return_intermediates: bool = False,
        attention_weights: bool = False,
    ) -> Any:
        """Decode a batch of sequences: position t sees positions up to t, and all of the memory.

        Args:
          x: ``[B, T, D]``.
          memory: ``[B, S, D]``, an encoder's output; None in a decoder-only stack.
          mask: ``[B, T]``, True where a position of ``x`` is valid.
          memory_mask: ``[B, S]``, True where a position of ``memory`` is valid.
          attention_mask: beside the causal one: ``[T, T]``, ``[B, T, T]`` or ``[B, H, T, T]``.
          condition: ``[B, C]`` that adaptive norms adapt to; None for the mean of the memory, or of
            the first position of ``x``, which all positions may see.
          deterministic: True turns dropout off; False needs an rng named ``dropout``.
          return_intermediates: also return every named intermediate.
          attention_weights: have ``attention/weights`` and ``cross_attention/weights`` among them.

        Returns:
          ``[B, T, D]``; with ``return_intermediates`` a pair, as in `TransformerEncoder`.

        Raises:
          TypeError: if the memory is no floating-point array ``[B, S, D]`` (above all: if a mask stands
            in its place), or a mask is one of numbers.
          ValueError: if the stack has cross-attention and there is no memory, or the reverse; or naming
            the argument whose shape does not fit.
        """
        check_memory(memory)
        if self.cross != (memory is not None):
            raise ValueError(
                f"cross={self.cross}, but memory is {'missing' if memory is None else 'given'}"
            )
        x, given = _given(
            x, memory, mask, memory_mask, attention_mask, condition, deterministic,
            return_intermediates, attention_weights,
        )  # fmt: skip
        out, named = self.run(x, given)
        return (out, named) if return_intermediates else out


def check_memory(memory: Any) -> None:
    """Refuse what is no memory, above all a mask: ``decoder(x, mask)`` is a mistake easily made.

    Raises:
      TypeError: saying how masks are given.
    """
    if memory is None:
        return
    check_real("memory", memory)
    if memory.ndim != 3 or not jnp.issubdtype(memory.dtype, jnp.floating):
        raise TypeError(
            f"memory is {memory.dtype} of shape {memory.shape}; it must be an encoder's output, "
            "floating point [B, S, D]; give masks by name, as decoder(x, memory, mask=mask), or "
            "decoder(x, mask=mask) without cross-attention"
        )


def _given(
    x,
    memory,
    mask,
    memory_mask,
    attention_mask,
    condition,
    deterministic,
    keep=False,
    weights=False,
) -> tuple[jax.Array, Given]:
    """Return ``x`` with padding at zero, and what layers are given beside it."""
    check_memory(memory)
    names = ("mask", "memory_mask", "attention_mask")
    masks = zip(names, (mask, memory_mask, attention_mask), strict=True)
    mask, memory_mask, attention_mask = (as_mask(name, given) for name, given in masks)
    check_sequence(x, mask, attention_mask, condition)
    check_axes(x=(x, "B T D"), memory=(memory, "B S W"), memory_mask=(memory_mask, "B? S?"))
    if memory is not None and memory.shape[-1] != x.shape[-1]:
        deprecated(f"memory has shape {memory.shape} and x {x.shape}; project it to x's width")
    x = zero_padding(x, mask)
    causal = causal_mask(x.shape[1])
    if attention_mask is not None:
        causal = jnp.logical_and(causal, attention_mask)
    own, across = join_masks(mask, causal), None
    if memory is None:
        condition = x[:, 0] if condition is None else condition
    else:
        memory = zero_padding(memory, memory_mask)
        condition = masked_row_mean(memory, memory_mask, condition)
        across = join_masks(memory_mask)
    context = {"mask": mask, "condition": condition, "deterministic": deterministic}
    return x, Given(context, own, memory, across, keep, keep and weights)
