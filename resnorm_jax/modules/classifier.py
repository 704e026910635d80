"""A sequence classifier: front end, positions, encoder, pooling, head."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask, check_axes, check_lengths, check_real
from resnorm_jax.modules.heads import HEAD_ACTIVATIONS
from resnorm_jax.modules.pooling import POOLING, Pooling
from resnorm_jax.modules.positions import POSITIONS
from resnorm_jax.norms.rows import NORMS
from resnorm_jax.ops.masks import valid_positions, zero_padding


class SequenceClassifier(nn.Module):
    """Class logits of whole sequences.

    Attributes:
      classes: number of classes; None for no head: the pooled vectors are returned.
      front_end: `TokenEmbedding`, `FeatureEmbedding`, `PatchEmbedding`, or any module that maps the
        input to ``[B, L, D]``. One that gives fewer tokens than positions has a ``stride``: its token
        j (from 0) is valid where position ``j * stride`` is.
      encoder: `TransformerEncoder`, or any module called as
        ``encoder(x, mask, deterministic=...)``, and with ``lengths=...`` where lengths are given.
      positions: ``"learned"``, ``"sinusoidal"`` or ``"none"``; with rotary attention, ``"none"``.
      max_length: most tokens that learned positions serve, learned tokens not counted.
      pooling: ``"mean"``, ``"cls"``, ``"distilled"``, ``"distilled_pair"``, ``"patches"``,
        ``"first"``, ``"last"``, ``"max"`` or ``"statistics"``, or a row of such a table.
      dropout: dropout of the embedded input and before the last projection of the head.
      param_dtype: dtype of the parameters.
      position_offset: rows of the learned positions before that of the first position.
      projection: a module between positions and encoder, such as `EmbeddingProjection`, or None.
      head_activation: of a hidden layer of the head, ``D -> D``: a row of `HEAD_ACTIVATIONS`; None for
        no such layer.
      head_norm: row of `resnorm_jax.norms` after that activation, or None.
      head_hidden_bias: whether that layer has a bias.
      head_bias: whether the last projection has a bias.
      norm_epsilon: of the head's norm; None for its own.
      token_dropout: share of whole tokens, as the front end gives them, that training hides: these
        become zero vectors, the others are times ``1 / (1 - share)``. Source: word dropout, Iyyer et
        al. 2015 ("Deep Unordered Composition Rivals Syntactic Methods"), section 3.1.

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

    classes: int | None
    front_end: nn.Module
    encoder: nn.Module
    positions: str = "learned"
    max_length: int = 512
    pooling: str | Pooling = "mean"
    dropout: float = 0.0
    param_dtype: Any = jnp.float32
    position_offset: int = 0
    projection: nn.Module | None = None
    head_activation: str | None = None
    head_norm: str | None = None
    head_hidden_bias: bool = True
    head_bias: bool = True
    norm_epsilon: float | None = None
    token_dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        lengths: jax.Array | None = None,
        token_types: jax.Array | None = None,
        at: jax.Array | None = None,
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
          token_types: ``[B, L]`` integers, for tokens of a model that has types; see `TokenEmbedding`.
          at: ``[B, K]`` integers: of which positions logits ``[B, K, classes]`` are wanted, where the
            pooling keeps positions, as in masked pretraining. The head sees no others.
          deterministic: True turns dropout off; False needs an rng named ``dropout``.
          return_intermediates: also return the encoder's named intermediates.
          attention_weights: have the attention weights among them, as in `TransformerEncoder`.

        Returns:
          Logits ``[B, classes]`` in float32 at least, or the pooled vectors ``[B, D]`` of a model
          without head; with ``return_intermediates`` a pair of them and a dictionary: the encoder's
          intermediates, ``encoded [B, L, D]``, which is what it returned, and ``pooled``.

        Raises:
          TypeError: if ``x`` is complex, or the mask one of numbers.
          ValueError: naming the argument whose shape does not fit.
        """
        pooling, mask = POOLING.get(self.pooling), as_mask("mask", mask)
        check_real("x", x)
        check_axes(x=(x, "B L ..."), mask=(mask, "B L?"))
        check_lengths(lengths, x=(x, "B L ..."))
        told = {} if token_types is None else {"token_types": token_types}
        h = self.front_end(zero_padding(x, valid_positions(mask, lengths, x.shape[1])), **told)
        # Its name is its own: the keys of the other dropouts are as they were without it.
        hide = nn.Dropout(self.token_dropout, broadcast_dims=(-1,), name="hide")
        h = hide(h, deterministic=deterministic)
        stride = getattr(self.front_end, "stride", 1)
        if mask is not None:
            mask = jnp.broadcast_to(mask[:, ::stride], h.shape[:2])
        if lengths is not None:
            lengths = -(-lengths // stride)
        if pooling.tokens:
            h, mask = self._prepend(h, mask, pooling.tokens)
            lengths = None if lengths is None else lengths + len(pooling.tokens)
        h = self._add_positions(h, len(pooling.tokens))
        h = nn.Dropout(self.dropout)(h, deterministic=deterministic)
        h = h if self.projection is None else self.projection(h)
        extra: dict[str, Any] = {"return_intermediates": True} if return_intermediates else {}
        if extra and attention_weights:
            extra["attention_weights"] = True
        if lengths is not None:
            extra["lengths"] = lengths
        out = self.encoder(h, mask, deterministic=deterministic, **extra)
        h, named = out if return_intermediates else (out, {})
        encoded = h
        pooled = pooling.function(h, valid_positions(mask, lengths, h.shape[1]))
        if at is not None:
            check_axes(at=(at, "B K"), pooled=(pooled, "B L D"))
            pooled = jnp.take_along_axis(pooled, at[..., None], axis=1)
        pooled, out = self._head(pooled, deterministic)
        named = {**named, "encoded": encoded, "pooled": pooled}
        return (out, named) if return_intermediates else out

    def _head(self, pooled: jax.Array, deterministic: bool) -> tuple[jax.Array, jax.Array]:
        """Return what is pooled, as the last projection sees it, and the logits."""
        wide = jnp.promote_types(pooled.dtype, jnp.float32)
        if self.head_activation is not None:
            pooled = nn.Dense(
                pooled.shape[-1], use_bias=self.head_hidden_bias,
                dtype=wide, param_dtype=self.param_dtype, name="head_hidden",
            )(pooled)  # fmt: skip
            pooled = HEAD_ACTIVATIONS.get(self.head_activation).function(pooled)
        if self.head_norm is not None:
            row = NORMS.get(self.head_norm)
            pooled = row.build(
                name="head_norm", epsilon=self.norm_epsilon, param_dtype=self.param_dtype
            )(pooled)
        pooled = nn.Dropout(self.dropout)(pooled, deterministic=deterministic).astype(wide)
        if self.classes is None:
            return pooled, pooled
        dense = nn.Dense(
            self.classes, use_bias=self.head_bias, param_dtype=self.param_dtype, name="head"
        )
        return pooled, dense(pooled)

    def _prepend(self, h: jax.Array, mask: jax.Array | None, names: tuple[str, ...]):
        width, first = h.shape[-1], []
        for name in names:
            token = self.param(name, nn.initializers.zeros, (width,), self.param_dtype)
            first.append(jnp.broadcast_to(token.astype(h.dtype), (h.shape[0], 1, width)))
        if mask is not None:
            # Not `jnp.pad`: with a symbol for the rows jax2onnx takes a concatenation alone.
            mask = jnp.concatenate([jnp.ones((h.shape[0], len(names)), bool), mask], axis=1)
        return jnp.concatenate([*first, h], axis=1), mask

    def _add_positions(self, h: jax.Array, extra: int) -> jax.Array:
        module = POSITIONS.get(self.positions).module
        if module is None:
            return h
        return module(
            self.max_length + extra, self.param_dtype, self.position_offset, name="positions"
        )(h)
