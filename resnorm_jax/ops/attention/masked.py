"""Attention under a mask or lengths, by whichever implementation suits."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask, check_axes, check_fits, check_lengths, check_real
from resnorm_jax.errors import ShapeError, nearest
from resnorm_jax.ops.attention.choice import (
    IMPLEMENTATIONS,
    Implementation,
    choose_attention,
    why_not_cudnn,
)
from resnorm_jax.ops.attention.chunks import attend_at_once, attend_in_chunks
from resnorm_jax.ops.attention.flash import backward_here, flash_attention
from resnorm_jax.ops.attention.own_queries import by_own_queries
from resnorm_jax.ops.masks import attending, join_lengths


def masked_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    *,
    lengths: jax.Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: Implementation | None = None,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    r"""Scaled dot-product attention ``softmax(scale q k^T + bias) v`` over the allowed keys.

    $$ \mathrm{softmax}\left(\frac{q k^\top}{\sqrt{D_h}} + b + m\right) v, \quad m = 0 \;
    \mathrm{where\ allowed}, \; -\infty \; \mathrm{elsewhere} $$

    Args:
      query: ``[B, T, H, Dh]``.
      key: ``[B, S, G, Dh]``; where G is under H and divides it, each head of keys and values serves
        ``H / G`` heads of queries, one after the other (Ainslie et al. 2023, arXiv 2305.13245).
      value: ``[B, S, G, Dh]``.
      mask: boolean, broadcastable to ``[B, H, T, S]``; True where a query may look at a key. A query
        that may look at nothing gets 0, and has no gradient.
      lengths: ``[B]`` integers: queries of row b may look at its first ``lengths[b]`` keys only. With a
        mask both hold. Padding on the right is better given as lengths than as a mask: NVIDIA's
        kernel is chosen only then.
      dropout_rate: dropout of the attention weights.
      dropout_key: random key for it; None turns dropout off.
      implementation: ``"xla"``, all queries at once, by `jax.nn.dot_product_attention`, on a CPU by
        code of ours, or by flax.linen's function where there is dropout; ``"chunked"``, few queries
        at a time, in memory that grows with ``T + S`` and not with ``T S``; ``"cudnn"``, NVIDIA's, in
        half precision, without a mask, forward mode and dropout; None for cuDNN's where ``lengths``
        are given and `why_not_cudnn` has nothing against it, else for what `choose_attention` says.
        With dropout the first two drop different weights.
      bias: added to the scores, floating point, broadcastable to ``[B, H, T, S]``; cuDNN's takes none.
      scale: factor on the products of queries and keys; None for ``1 / sqrt(Dh)``.

    Returns:
      ``[B, T, H, Dh]`` in the dtype of ``query``.

    Raises:
      TypeError: if an array is complex, or the mask one of numbers.
      ValueError: for arrays whose shapes do not fit, for an implementation that there is not, and for
        cuDNN's where it cannot be.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 1.
    """
    if implementation not in (None, *IMPLEMENTATIONS):
        hint = nearest(str(implementation), IMPLEMENTATIONS)
        raise ValueError(f"implementation {implementation!r}: unknown; {hint}")
    mask = as_mask("mask", mask)
    _check(query, key, value, mask, lengths, bias)
    arrays: dict[str, Any] = {
        "query": query, "key": key, "value": value, "mask": mask, "lengths": lengths, "bias": bias,
        "dropout_key": dropout_key,
    }  # fmt: skip
    rate = dropout_rate if dropout_key is not None else 0.0
    how: dict[str, Any] = {"rate": rate, "implementation": implementation, "scale": scale}
    return by_own_queries(lambda arrays: _attended(**arrays, **how), arrays)


def _attended(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    lengths: jax.Array | None,
    bias: jax.Array | None,
    dropout_key: jax.Array | None,
    rate: float,
    implementation: Implementation | None,
    scale: float | None,
) -> jax.Array:
    """`masked_attention` of arguments that were checked."""
    chosen = implementation or choose_attention(query.shape[1], key.shape[1])
    if implementation == "cudnn" or (implementation is None and lengths is not None):
        reason = why_not_cudnn(
            query, key, mask=mask is not None, bias=bias is not None, dropout=rate
        )
        if reason is None:
            return _by_cudnn(query, key, value, lengths, scale)
        if implementation == "cudnn":
            raise ValueError(f"implementation 'cudnn': {reason}")
    mask = join_lengths(mask, lengths, key.shape[1])
    if chosen == "chunked":
        key, value = (for_each_head(a, query) for a in (key, value))
        out = attend_in_chunks(
            query, key, value, mask, rate, dropout_key, bias=bias, scale=scale
        )  # fmt: skip
    elif rate > 0:
        # jax.nn.dot_product_attention has no dropout; flax's has, but always divides by sqrt(Dh).
        asked = query if scale is None else query * (scale * query.shape[-1] ** 0.5)
        key, value = (for_each_head(a, query) for a in (key, value))
        out = nn.dot_product_attention(
            asked, key, value, bias, mask=mask, dropout_rng=dropout_key, dropout_rate=rate,
            broadcast_dropout=False, force_fp32_for_softmax=True,
        ).astype(query.dtype)  # fmt: skip
    elif jax.default_backend() == "cpu":
        key, value = (for_each_head(a, query) for a in (key, value))
        out = attend_at_once(query, key, value, mask, bias=bias, scale=scale)
    else:
        out = jax.nn.dot_product_attention(
            query, key, value, bias=bias, mask=mask, scale=scale, implementation="xla"
        )
    return _silent(out, attending(mask))


def for_each_head(x: jax.Array, query: jax.Array) -> jax.Array:
    """Return keys or values ``[B, S, G, Dh]`` repeated to as many heads as the queries have."""
    heads, own = query.shape[2], x.shape[2]
    return x if heads == own else jnp.repeat(x, heads // own, axis=2)


def _check(query: Any, key: Any, value: Any, mask: Any, lengths: Any, bias: Any = None) -> None:
    for name, array in (("query", query), ("key", key), ("value", value)):
        check_real(name, array)
    check_axes(query=(query, "B T H K"), key=(key, "B S G K"), value=(value, "B S G V"))
    if query.shape[2] % key.shape[2]:
        raise ShapeError(
            f"key has {key.shape[2]} heads, which do not divide the {query.shape[2]} of query"
        )
    scores = (*query.shape[:3:2], query.shape[1], key.shape[1])
    check_fits("mask", mask, scores, "[B, H, T, S]", "a padding mask [B, S] is mask[:, None, None]")
    check_fits("bias", bias, scores, "[B, H, T, S]", "a bias by head [H, T, S] is bias[None]")
    check_real("bias", bias)
    check_lengths(lengths, query=(query, "B T H K"))


def _silent(out: jax.Array, heard: jax.Array | None) -> jax.Array:
    """Give 0 to queries that may look at nothing: others give them a mean, of padding among others."""
    return out if heard is None else jnp.where(heard, out, 0)


def _by_cudnn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    lengths: jax.Array | None,
    scale: float | None,
) -> jax.Array:
    """NVIDIA's flash attention. All queries ask, those of padding too, as under a mask."""
    told = None
    if lengths is not None:
        # The kernel defines nothing for a row without keys: it sees all keys, and gets 0 afterwards.
        some, every = lengths > 0, key.shape[1]
        told = (
            jnp.full(lengths.shape, query.shape[1], jnp.int32),
            jnp.where(some, jnp.minimum(lengths, every), every).astype(jnp.int32),
        )
    if backward_here() == "deterministic":
        key, value = (for_each_head(a, query) for a in (key, value))
    out = flash_attention(query, key, value, told, scale)
    return _silent(out, None if lengths is None else (lengths > 0)[:, None, None, None])


def attention_weights(
    query: jax.Array,
    key: jax.Array,
    mask: jax.Array | None = None,
    *,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """The weights ``softmax(scale q k^T + bias)`` that `masked_attention` gives the values.

    Args:
      query: ``[B, T, H, Dh]``.
      key: ``[B, S, G, Dh]``.
      mask: as there, and so are the others.
      bias: added to the scores, or None.
      scale: None for ``1 / sqrt(Dh)``.

    Returns:
      ``[B, H, T, S]`` in float32 at least; rows sum to 1, or are 0 where a query may look at nothing.
    """
    mask = as_mask("mask", mask)
    _check(query, key, key, mask, None, bias)
    key = for_each_head(key, query)
    wide = jnp.promote_types(query.dtype, jnp.float32)
    q, k = query.astype(wide), key.astype(wide)
    scores = jnp.einsum("bthk,bshk->bhts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if bias is None else scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, 0.7 * jnp.finfo(wide).min)  # finite: as masked_attention's
    weights = jax.nn.softmax(scores, axis=-1)
    return weights if mask is None else jnp.where(mask.any(-1, keepdims=True), weights, 0)
