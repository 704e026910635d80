"""Attention for a part of the queries at a time: memory that does not grow with ``T S``; and for all.

Going backward, each part computes its weights again. What a part is, is a matter of the processor:
scores that fit a CPU's cache are several times faster than those that have to come from memory.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from resnorm_jax.ops import keys

# Queries at a time: the first, or so many times the width of a head if that is more. Each part adds to
# the gradient of all keys and values, which should be little beside its scores.
CHUNK, WIDTHS = 64, 2
# Scores at a time, over rows, heads and queries: on a CPU so many that they fit a processor's cache,
# elsewhere so many that there is work for all of an accelerator.
SCORES = {"cpu": 4 * 64 * 1344}
SCORES_ELSEWHERE = 2**26
# What is kept for the way back: as small as the queries. With it one product less is computed again.
KEPT = ("attention_peak", "attention_total", "attention_sum")
REMAT = {
    "policy": jax.checkpoint_policies.save_only_these_names(*KEPT),
    "prevent_cse": False,  # forward and backward are loops of their own
}


def attend_in_chunks(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    *,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Return `resnorm_jax.masked_attention`'s values, for some rows, heads and queries at a time.

    A query that may look at nothing gets the mean of all values.

    Args:
      query: ``[B, T, H, Dh]``.
      key: ``[B, S, H, Dh]``.
      value: ``[B, S, H, Dh]``.
      mask: boolean, broadcastable to ``[B, H, T, S]``, or None.
      dropout_rate: dropout of the attention weights; over 0 it needs ``dropout_key``.
      dropout_key: random key; each part draws with a key of its own.
      bias: added to the scores, broadcastable to ``[B, H, T, S]``, or None.
      scale: factor on the products of queries and keys; None for ``1 / sqrt(Dh)``.

    Returns:
      ``[B, T, H, Dh]`` in the dtype of ``query``.
    """
    # Heads stand before positions, so that no part has to turn the keys and values around.
    q, k, v = (jnp.swapaxes(a, 1, 2) for a in (query, key, value))
    batch, heads = q.shape[:2]
    scores = tuple(
        None if a is None else a.reshape((1,) * (4 - a.ndim) + a.shape) for a in (mask, bias)
    )
    drop = dropout_key if dropout_rate > 0 else None
    factor = q.shape[-1] ** -0.5 if scale is None else scale

    def attend(parts: Any) -> jax.Array:
        q, (k, v), scores, drop = parts
        return _attend(q, k, v, scores, factor, dropout_rate, drop)

    queries = max(CHUNK, WIDTHS * q.shape[-1])
    rows, some = parts_at_once(batch, heads, queries * k.shape[2])
    by_queries = _in_turns(jax.checkpoint(attend, **REMAT), 2, queries)
    by_heads = _in_turns(by_queries, 1, some)
    out = _in_turns(by_heads, 0, rows)((q, (k, v), scores, drop))
    return jnp.swapaxes(out, 1, 2)


def attend_at_once(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    *,
    bias: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Return `attend_in_chunks`' values for all queries at once, without dropout.

    The weights are kept for the way back. On a CPU this is faster than `jax.nn.dot_product_attention`,
    for which XLA turns the keys and the values around. The softmax is whole, not divided at the end as
    in chunks: XLA then rounds it alike in programs for one device and for several.
    """
    q, k, v = (jnp.swapaxes(a, 1, 2) for a in (query, key, value))
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scaled = q.astype(wide) * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = jnp.einsum("bhtk,bhsk->bhts", scaled, k, preferred_element_type=wide)
    scores = scores if bias is None else scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, 0.7 * jnp.finfo(wide).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    y = jnp.einsum("bhts,bhsk->bhtk", weights, v, preferred_element_type=wide)
    return jnp.swapaxes(y.astype(query.dtype), 1, 2)


def parts_at_once(
    rows: int, heads: int, scores: int, backend: str | None = None
) -> tuple[int, int]:
    """Return of how many rows and heads the scores are computed together.

    Both divide what there is; all heads are taken before a second row is. A head has ``scores``.
    """
    most = SCORES.get(backend or jax.default_backend(), SCORES_ELSEWHERE) // max(scores, 1)
    some = _largest_divisor(heads, most)
    return _largest_divisor(rows, most // heads), some


def _largest_divisor(count: int, most: int) -> int:
    return max((d for d in range(1, min(count, most) + 1) if count % d == 0), default=1)


def _in_turns(attend: Callable[[Any], jax.Array], axis: int, size: int) -> Callable[[Any], Any]:
    """Return ``attend`` for ``size`` at a time along an axis of ``[B, H, T, ...]``.

    Keys and values have no axis of queries; a mask or a bias of extent 1 along the axis serves all.
    """
    apart = keys.parts if axis == 0 else jax.random.split

    def run(parts: Any) -> jax.Array:
        q, kv, scores, drop = parts
        length = q.shape[axis]
        count = math.ceil(length / size)
        if count <= 1:
            return attend(parts)

        def split(a: jax.Array) -> jax.Array:
            missing = [(0, count * size - length if i == axis else 0) for i in range(a.ndim)]
            shape = (*a.shape[:axis], count, size, *a.shape[axis + 1 :])
            return jnp.moveaxis(jnp.pad(a, missing).reshape(shape), axis, 0)

        own_kv, own = axis < 2, [a is not None and a.shape[axis] > 1 for a in scores]
        each = (
            split(q),
            jax.tree.map(split, kv) if own_kv else None,
            tuple(split(a) if cut else None for a, cut in zip(scores, own, strict=True)),
            None if drop is None else apart(drop, count),
        )

        def turn(each: Any) -> jax.Array:
            q, kv_part, cut, key = each
            told = tuple(
                part if mine else a for part, a, mine in zip(cut, scores, own, strict=True)
            )
            return attend((q, kv_part if own_kv else kv, told, key))

        out = jnp.moveaxis(lax.map(turn, each), 0, axis)
        joined = out.reshape(*out.shape[:axis], count * size, *out.shape[axis + 2 :])
        return lax.slice_in_dim(joined, 0, length, axis=axis)

    return run


def _attend(
    q: Any, k: Any, v: Any, masks: Any, factor: float, rate: float, key: jax.Array | None
) -> jax.Array:
    """Attend, and divide by the sum of the weights at the end, where there is less to divide."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    (mask, bias), scaled, low = masks, q.astype(wide) * factor, None
    if mask is not None:
        # So low a number, where a query may not look, that it swallows the score. It is finite: so is
        # the mean that a query gets which may look at nothing, and which the caller drops.
        low = jnp.where(mask, 0, 0.7 * jnp.finfo(wide).min).astype(wide)
    scores = jnp.einsum("bhtk,bhsk->bhts", scaled, k, preferred_element_type=wide)
    scores = scores if bias is None else scores + bias
    scores = scores if low is None else scores + low
    peak = lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - checkpoint_name(peak, KEPT[0]))
    total = checkpoint_name(weights.sum(-1, keepdims=True), KEPT[1])
    if key is not None:
        kept = jax.random.bernoulli(key, 1 - rate, weights.shape)
        weights = jnp.where(kept, weights / (1 - rate), 0)
    y = jnp.einsum("bhts,bhsk->bhtk", weights.astype(v.dtype), v, preferred_element_type=wide)
    return (checkpoint_name(y, KEPT[2]) / total).astype(q.dtype)
