"""A sequence classifier: front end, positions, encoder, pooling, head."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask, check_axes, check_lengths, check_real
from resnorm_jax.modules.pooling import POOLING, Pooling
from resnorm_jax.modules.positions import POSITIONS
from resnorm_jax.ops.masks import valid_positions, zero_padding


class SequenceClassifier(nn.Module):
    """Class logits of whole sequences.

    Attributes:
      classes: number of classes.
      front_end: `TokenEmbedding`, `FeatureEmbedding`, `PatchEmbedding`, or any module that maps the
        input to ``[B, L, D]``. One that gives fewer tokens than positions has a ``stride``: its token
        j (from 0) is valid where position ``j * stride`` is.
      encoder: `TransformerEncoder`, or any module called as
        ``encoder(x, mask, deterministic=...)``, and with ``lengths=...`` where lengths are given.
      positions: ``"learned"``, ``"sinusoidal"`` or ``"none"``; with rotary attention, ``"none"``.
      max_length: most tokens that learned positions serve, class token not counted.
      pooling: ``"mean"``, ``"cls"``, ``"last"`` or ``"max"``, or a row of such a table.
      dropout: dropout of the embedded input and before the head.
      param_dtype: dtype of the parameters.

    >>> import jax, jax.numpy as jnp
    >>> import resnorm_jax as rn
    >>> model = rn.SequenceClassifier(
    ...     classes=3,
    ...     front_end=rn.FeatureEmbedding(width=8),
    ...     encoder=rn.TransformerEncoder(depth=2, heads=2),
    ...     max_length=5,
    ... )
    >>> x = jnp.ones((4, 5, 12))
    >>> model.apply(model.init(jax.random.key(0), x), x).shape
    (4, 3)
    """

    classes: int
    front_end: nn.Module
    encoder: nn.Module
    positions: str = "learned"
    max_length: int = 512
    pooling: str | Pooling = "mean"
    dropout: float = 0.0
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        lengths: jax.Array | None = None,
        deterministic: bool = True,
        return_intermediates: bool = False,
        attention_weights: bool = False,
    ) -> Any:
        """Classify a batch.

        Args:
          x: ``[B, L, C]`` features, ``[B, L]`` tokens or ``[B, H, W, C]`` images.
          mask: ``[B, L]``, True where a position is valid; ``[B, 1]`` for whole rows, as of images;
            None for full rows. What stands elsewhere, NaN too, changes nothing.
          lengths: ``[B]`` integers, in place of a mask: as in `TransformerEncoder`. Images have none.
          deterministic: True turns dropout off; False needs an rng named ``dropout``.
          return_intermediates: also return the encoder's named intermediates.
          attention_weights: have the attention weights among them, as in `TransformerEncoder`.

        Returns:
          Logits ``[B, classes]`` in float32 at least; with ``return_intermediates`` a pair.

        Raises:
          TypeError: if ``x`` is complex, or the mask one of numbers.
          ValueError: naming the argument whose shape does not fit.
        """
        pooling, mask = POOLING.get(self.pooling), as_mask("mask", mask)
        check_real("x", x)
        check_axes(x=(x, "B L ..."), mask=(mask, "B L?"))
        check_lengths(lengths, x=(x, "B L ..."))
        h = self.front_end(zero_padding(x, valid_positions(mask, lengths, x.shape[1])))
        stride = getattr(self.front_end, "stride", 1)
        if mask is not None:
            mask = jnp.broadcast_to(mask[:, ::stride], h.shape[:2])
        if lengths is not None:
            lengths = -(-lengths // stride)
        if pooling.class_token:
            h, mask = self._prepend(h, mask)
            lengths = None if lengths is None else lengths + 1
        h = self._add_positions(h, int(pooling.class_token))
        h = nn.Dropout(self.dropout)(h, deterministic=deterministic)
        extra: dict[str, Any] = {"return_intermediates": True} if return_intermediates else {}
        if extra and attention_weights:
            extra["attention_weights"] = True
        if lengths is not None:
            extra["lengths"] = lengths
        out = self.encoder(h, mask, deterministic=deterministic, **extra)
        h, named = out if return_intermediates else (out, {})
        pooled = pooling.function(h, valid_positions(mask, lengths, h.shape[1]))
        pooled = nn.Dropout(self.dropout)(pooled, deterministic=deterministic)
        pooled = pooled.astype(jnp.promote_types(pooled.dtype, jnp.float32))
        logits = nn.Dense(self.classes, param_dtype=self.param_dtype, name="head")(pooled)
        return (logits, {**named, "pooled": pooled}) if return_intermediates else logits

    def _prepend(self, h: jax.Array, mask: jax.Array | None):
        token = self.param("cls", nn.initializers.zeros, (h.shape[-1],), self.param_dtype)
        first = jnp.broadcast_to(token.astype(h.dtype), (h.shape[0], 1, h.shape[-1]))
        if mask is not None:
            mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
        return jnp.concatenate([first, h], axis=1), mask

    def _add_positions(self, h: jax.Array, extra: int) -> jax.Array:
        module = POSITIONS.get(self.positions).module
        if module is None:
            return h
        return module(self.max_length + extra, self.param_dtype, name="positions")(h)
