"""The Transformer encoder: one compiled layer body, scanned over any depth."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import jax

from resnorm_jax.arguments import (
    as_mask,
    check_axes,
    check_fits,
    check_integers,
    check_lengths,
    check_real,
)
from resnorm_jax.modules.layer import Given, TransformerLayer
from resnorm_jax.modules.stack import TransformerStack
from resnorm_jax.ops.masks import attention_mask as join_masks
from resnorm_jax.ops.masks import causal_mask, masked_row_mean, valid_positions, zero_padding
from resnorm_jax.schemes.place import Place


class TransformerEncoderLayer(TransformerLayer):
    """Self-attention and feed-forward, each a residual block of one arrangement.

    Attributes:
      heads: attention heads; must divide the width.
      mlp_width: width inside the feed-forward network; None for 4 times the width.
      arrangement: name or row of `resnorm_jax.arrangements`.
      norm: name or row of `resnorm_jax.norms`.
      norm_epsilon: None for the norm's own (torch's layers use 1e-5).
      activation: ``"relu"``, ``"gelu"`` (exact), ``"gelu_tanh"``, ``"silu"``, or with a gate
        ``"geglu"``, ``"geglu_tanh"`` or ``"swiglu"``.
      dropout: dropout of both branches' outputs and inside the feed-forward network.
      attention_dropout: dropout of the attention weights.
      drop_path: stochastic depth's drop rate at the last layer; ``l / N`` of it at layer l.
      rotary: whether positions enter by rotating queries and keys.
      use_bias: whether projections have a bias; or the roles whose projections do, as in
        ``"query+key+value"``, of query, key, value, out, fc1 (the gate's too) and fc2.
      attention: how it is computed: ``"xla"``, ``"chunked"``, ``"cudnn"``, or None for what suits the
        lengths; see `resnorm_jax.masked_attention`.
      kv_heads: heads of keys and values, each of which serves ``heads / kv_heads`` heads of queries;
        None for as many as heads (Ainslie et al. 2023, arXiv 2305.13245).
      head_width: features of a head; None for width / heads.
      attention_scale: factor on the products of queries and keys; None for one over the root of the
        width of a head (of three times it with ``relative="disentangled"``).
      causal: whether a position sees no later ones. Adaptive norms adapt to the whole row still.
      window: how many positions a query sees to either side; None or ``"all"`` for all; or by layer: a
        sequence, or a text that is repeated over the layers: ``"all+64*2"`` is all, 64, 64, all, ...
      rotary_base: the longest wave of rotary positions is ``2 pi`` times as long; None for 10,000; or
        by layer, as ``window``.
      relative: how relative positions enter the scores: None, ``"disentangled"`` (DeBERTa's),
        ``"bias"`` (T5's) or, between patches of images, ``"grid"`` (BEiT's); see
        `resnorm_jax.ops.attention.relative`.
      relative_buckets: of that table: to either side (256), with ``"bias"`` altogether (32); with
        ``"grid"`` the patches along a side of the images.
      relative_positions: the distance from which relative positions are alike (512; 128).
      relative_by_layer: whether each layer has a table of its own; else all share one.
      place: which layer of how many this is, for constants that depend on depth.
      norms: slot (one of `resnorm_jax.arrangements.SLOTS`) to norm, in place of ``norm`` there.
      axis_name: mapped axis over which the batch is spread, for norms whose statistics run over rows.
      dtype: dtype of the computation; None for that of the input.
      param_dtype: dtype of the parameters.

    Equal to `torch.nn.TransformerEncoderLayer` with ``norm_first=False`` for ``post_ln`` and
    ``norm_first=True`` for ``pre_ln``.

    >>> import jax, jax.numpy as jnp
    >>> layer = TransformerEncoderLayer(heads=2)
    >>> x = jnp.ones((1, 5, 8))
    >>> layer.apply(layer.init(jax.random.key(0), x), x).shape
    (1, 5, 8)
    """

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        lengths: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        condition: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Run the layer on ``x [B, L, D]``; arguments as in `TransformerEncoder`."""
        x, given = _given(x, mask, lengths, attention_mask, condition, deterministic, self.causal)
        return self.run(x, given)


class TransformerEncoder(TransformerStack, kw_only=True):
    """A stack of `TransformerEncoderLayer`, then the arrangement's final norm if it has one.

    Parameters of like layers are stacked along a first axis under ``layers``, whether the loop is
    scanned or unrolled, so that one checkpoint serves both. An arrangement or a norm that changes
    with depth makes several stacks, ``layers_0`` and so on, one compiled body each.

    Attributes:
      depth: N, number of layers.
      heads: attention heads; must divide the width of ``x``.
      mlp_width: see `TransformerEncoderLayer`, as all fields down to ``relative_by_layer``.
      norm: as there; or one for each layer: a sequence, a text such as ``"layer*2+rms"`` (two layers,
        then the rest), or a function of the `Place`.
      layer_groups: how many layers have parameters of their own; None for all. With G of them each is
        applied N / G times in a row (Lan et al. 2019, arXiv 1909.11942, section 3.1, whose G is 1).
        Constants that depend on depth, and dropout, are those of each layer; first values are those of
        the first layer of a group.
      unroll: layers in each step of the loop over them; ``depth`` unrolls it altogether, ``"auto"``
        does so where it pays: see `resnorm_jax.planning.unroll`. The parameters, their first values
        and dropout are the same.
      remat: what the backward pass computes again: ``"none"``, ``"full"`` (all of a layer) or
        ``"dots"`` (all but the matrix products).
      remat_every: with ``remat``, layers between two carries that are kept; must divide the depth.
        Near its square root memory grows as the root of depth, for one more forward pass.
      norms: slot (one of `resnorm_jax.arrangements.SLOTS`) to norm, in place of ``norm`` there; each
        as ``norm``; ``"attention/norm_before"`` is that slot of one block. A norm for
        ``embedding_norm``, ``value_norm``, ``heads_norm`` or ``mlp_norm`` puts one there if the
        arrangement has none.
      stream: name of a residual scheme, in place of the arrangement's.
      query_key: what is done to queries and keys, in place of the arrangement's: a row of
        `resnorm_jax.schemes.query_key`.
      axis_name: mapped axis over which the batch is spread, for norms whose statistics run over rows.
      dtype: dtype of the computation; None for that of the input.
      param_dtype: dtype of the parameters.
      decoder_depth: layers of the decoder that reads this encoder, for constants that depend on both;
        0 for an encoder alone.

    >>> import jax, jax.numpy as jnp
    >>> encoder = TransformerEncoder(depth=3, heads=2, arrangement="deepnorm")
    >>> x = jnp.ones((1, 5, 8))
    >>> variables = encoder.init(jax.random.key(0), x)
    >>> variables["params"]["layers"]["feed_forward"]["branch"]["fc1"]["kernel"].shape
    (3, 8, 32)
    """

    decoder_depth: int = 0

    @property
    def beside(self) -> Place:
        """What stands beside this stack."""
        return Place(stack="encoder", other=self.decoder_depth)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None = None,
        *,
        lengths: jax.Array | None = None,
        attention_mask: jax.Array | None = None,
        condition: jax.Array | None = None,
        deterministic: bool = True,
        return_intermediates: bool = False,
        attention_weights: bool = False,
    ) -> Any:
        """Encode a batch of sequences.

        Args:
          x: ``[B, L, D]``.
          mask: ``[B, L]``, True where a position is valid. What stands elsewhere changes nothing.
          lengths: ``[B]`` integers, in place of a mask where padding stands on the right: the first
            ``lengths[b]`` positions of row b are valid. Where both are given, both hold. Only with
            lengths alone can NVIDIA's attention serve; it has no forward mode, for which give a mask.
          attention_mask: ``[L, L]``, ``[B, L, L]`` or ``[B, H, L, L]``, True where a query (second
            last axis) may look at a key.
          condition: ``[B, C]`` that adaptive norms and gates adapt to; None for the mean of ``x`` over
            valid positions.
          deterministic: True turns dropout off; False needs an rng named ``dropout``.
          return_intermediates: also return every named intermediate.
          attention_weights: have ``attention/weights``, ``[N, B, H, L, L]`` in float32 at least, among
            them.

        Returns:
          ``[B, L, D]``; with ``return_intermediates`` the pair of that and a dictionary of
          ``[N, B, L, D]`` arrays: ``stream_in`` and, for attention and feed_forward, ``branch_in``,
          ``branch_out`` and ``stream`` (after the addition).

        Raises:
          TypeError: if ``x`` is complex, or a mask one of numbers.
          ValueError: naming the argument whose shape does not fit.
        """
        x, given = _given(x, mask, lengths, attention_mask, condition, deterministic, self.causal)
        given = replace(
            given,
            keep=return_intermediates,
            weights=attention_weights and return_intermediates,
        )
        out, named = self.run(x, given)
        return (out, named) if return_intermediates else out


def _given(
    x: jax.Array,
    mask: jax.Array | None,
    lengths: jax.Array | None,
    attention_mask: jax.Array | None,
    condition: jax.Array | None,
    deterministic: bool,
    causal: bool,
) -> tuple[jax.Array, Given]:
    """Return ``x`` with padding at zero, and what layers are given beside it."""
    mask = as_mask("mask", mask)
    attention_mask = as_mask("attention_mask", attention_mask)
    check_sequence(x, mask, attention_mask, condition)
    check_lengths(lengths, x=(x, "B L D"))
    if causal:
        before = causal_mask(x.shape[1])
        attention_mask = before if attention_mask is None else attention_mask & before
    valid = valid_positions(mask, lengths, x.shape[1])
    x = zero_padding(x, valid)
    context = {
        "mask": valid,
        "condition": masked_row_mean(x, valid, condition),
        "deterministic": deterministic,
    }
    # Attention is told lengths as they are: it may know better what to do with them than with a mask.
    return x, Given(context, join_masks(mask, attention_mask), lengths=lengths)


def check_sequence(x: Any, mask: Any, attention_mask: Any, condition: Any) -> None:
    """Check what a stack of layers is given; masks are boolean already.

    Raises:
      TypeError: if ``x`` or the condition is complex.
      ValueError: naming the argument whose shape does not fit.
    """
    check_real("x", x)
    check_real("condition", condition)
    check_axes(x=(x, "B L D"), mask=(mask, "B? L?"), condition=(condition, "B? C"))
    if attention_mask is not None and attention_mask.ndim < 5:  # the rank is checked with the join
        rows, length, _ = x.shape
        inner = attention_mask if attention_mask.ndim < 4 else attention_mask[:, 0]
        form = "[L, L], [B, L, L] or [B, H, L, L], of which the last axes are"
        check_fits("attention_mask", inner, (rows, length, length)[-inner.ndim :], form)


def layer_parameters(params: Any, layer: int) -> Any:
    """Return the parameters of a layer, counted from 1, from those of an encoder or a decoder.

    Layers that share parameters (``layer_groups``) count as one.

    Raises:
      IndexError: if there is no such layer.
      TypeError: if ``params`` is no dictionary, or ``layer`` no integer.
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params is a {type(params).__name__}; give the parameters by name")
    check_integers("layer", layer, "counted from 1")
    check_axes(layer=(layer, ""))
    number = layer - 1
    stacks = [params["layers"]] if "layers" in params else [
        params[f"layers_{n}"] for n in range(len(params)) if f"layers_{n}" in params
    ]  # fmt: skip
    for stack in stacks:
        depth = jax.tree.leaves(stack)[0].shape[0]
        if 0 <= number < depth:
            return jax.tree.map(lambda p, n=number: p[n], stack)
        number -= depth
    raise IndexError(f"layer {layer} of {layer - 1 - number} layers, which count from 1")
