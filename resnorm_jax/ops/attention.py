"""Masked attention. Not what this library is about: JAX's own does the work where it is fast.

`jax.nn.dot_product_attention` keeps the weights of all queries for the backward pass. At 16 series of
1,344 positions and 8 heads these are some gigabytes, and a CPU, whose caches they do not fit, spends
its time waiting. `chunked` attends for a few queries at a time and computes the weights again going
backward.
"""

import math
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.errors import nearest

Implementation = Literal["xla", "chunked", "cudnn"]
IMPLEMENTATIONS = get_args(Implementation)
CHUNK = 64  # queries at a time: their weights for some thousand keys fit a processor's cache
# Products of the numbers of queries and keys from which on chunks are taken: on a CPU they are faster
# from there, elsewhere the weights begin to fill the memory.
CHUNKED_FROM = {"cpu": 256 * 256}
CHUNKED_FROM_ELSEWHERE = 4096 * 4096


def choose_attention(queries: int, keys: int, backend: str | None = None) -> Implementation:
    """Return what ``implementation=None`` stands for.

    Args:
      queries: their number, ``T``.
      keys: their number, ``S``.
      backend: ``"cpu"``, ``"gpu"`` or ``"tpu"``; JAX's default one if None.
    """
    many = CHUNKED_FROM.get(backend or jax.default_backend(), CHUNKED_FROM_ELSEWHERE)
    return "chunked" if queries * keys >= many else "xla"


def masked_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    *,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Scaled dot-product attention ``softmax(q k^T / sqrt(Dh)) v`` over the allowed keys.

    Args:
      query: ``[B, T, H, Dh]``.
      key: ``[B, S, H, Dh]``.
      value: ``[B, S, H, Dh]``.
      mask: boolean, broadcastable to ``[B, H, T, S]``; True where a query may look at a key. A query
        that may look at nothing gets the mean of all values, which is finite.
      dropout_rate: dropout of the attention weights.
      dropout_key: random key for it; None turns dropout off.
      implementation: ``"xla"``, all queries at once, by `jax.nn.dot_product_attention`, or by
        flax.linen's function where there is dropout; ``"chunked"``, 64 queries at a time, in memory
        that grows with ``T + S`` and not with ``T S``; ``"cudnn"``, NVIDIA's, in half precision,
        without forward mode and without dropout; None for what `choose_attention` says. With dropout
        the first two drop different weights.

    Returns:
      ``[B, T, H, Dh]`` in the dtype of ``query``.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 1.
    """
    if implementation not in (None, *IMPLEMENTATIONS):
        hint = nearest(str(implementation), IMPLEMENTATIONS)
        raise ValueError(f"implementation {implementation!r}: unknown; {hint}")
    chosen = implementation or choose_attention(query.shape[1], key.shape[1])
    dropped = dropout_rate > 0 and dropout_key is not None
    if chosen == "chunked":
        return _chunked(query, key, value, mask, (dropout_rate, dropout_key) if dropped else None)
    if dropped:
        # jax.nn.dot_product_attention has no dropout; flax's has.
        return nn.dot_product_attention(
            query, key, value, mask=mask, dropout_rng=dropout_key, dropout_rate=dropout_rate,
            broadcast_dropout=False, force_fp32_for_softmax=True,
        ).astype(query.dtype)  # fmt: skip
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=chosen)


def _chunked(query: Any, key: Any, value: Any, mask: Any, dropout: Any) -> jax.Array:
    """Attend for `CHUNK` queries after the other; going backward, each computes its weights again.

    Heads stand before positions, so that no chunk has to turn the keys and values around.
    """
    batch, length, heads, _ = query.shape
    count = math.ceil(length / CHUNK)

    def chunks(a: jax.Array, axis: int) -> jax.Array:
        filled = [(0, count * CHUNK - length if i == axis else 0) for i in range(a.ndim)]
        shape = (*a.shape[:axis], count, CHUNK, *a.shape[axis + 1 :])
        return jnp.moveaxis(jnp.pad(a, filled).reshape(shape), axis, 0)

    q_BxHxTxK, k_BxHxSxK, v_BxHxSxK = (jnp.swapaxes(a, 1, 2) for a in (query, key, value))
    by_query = mask is not None and mask.ndim > 1 and mask.shape[-2] > 1
    masks = chunks(mask, mask.ndim - 2) if by_query else None
    wide = jnp.promote_types(query.dtype, jnp.float32)
    shared = None if by_query or mask is None else _bias(mask, wide)

    @jax.checkpoint
    def attend(chunk: Any) -> jax.Array:
        number, q, own = chunk
        bias = _bias(own, wide) if by_query else shared
        return _attend(q, k_BxHxSxK, v_BxHxSxK, bias, dropout, number)

    out = lax.map(attend, (jnp.arange(count), chunks(q_BxHxTxK, 2), masks))
    out = jnp.moveaxis(out, 0, 2).reshape(batch, heads, count * CHUNK, -1)
    return jnp.swapaxes(out[:, :, :length], 1, 2)


def _bias(mask: jax.Array, dtype: Any) -> jax.Array:
    """What is added to the scores: so low a number, where a query may not look, that it swallows them.

    It is finite: a query that may look at nothing has equal scores then.
    """
    return jnp.where(mask, 0, 0.7 * jnp.finfo(dtype).min).astype(dtype)


def _attend(q: Any, k: Any, v: Any, bias: Any, dropout: Any, number: Any) -> jax.Array:
    """Attend, and divide by the sum of the weights at the end, where there is less to divide."""
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scaled = q.astype(wide) * q.shape[-1] ** -0.5
    scores = jnp.einsum("bhtk,bhsk->bhts", scaled, k, preferred_element_type=wide)
    scores = scores if bias is None else scores + bias
    weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    if dropout is not None:
        rate, key = dropout
        kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - rate, weights.shape)
        weights = jnp.where(kept, weights / (1 - rate), 0)
    y = jnp.einsum("bhts,bhsk->bhtk", weights.astype(v.dtype), v, preferred_element_type=wide)
    return (y / total).astype(q.dtype)


def attention_weights(query: jax.Array, key: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """The weights ``softmax(q k^T / sqrt(Dh))`` that `masked_attention` gives the values.

    Args:
      query: ``[B, T, H, Dh]``.
      key: ``[B, S, H, Dh]``.
      mask: as there.

    Returns:
      ``[B, H, T, S]`` in float32 at least; rows sum to 1.
    """
    wide = jnp.promote_types(query.dtype, jnp.float32)
    q, k = query.astype(wide), key.astype(wide)
    scores = jnp.einsum("bthk,bshk->bhts", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, 0.7 * jnp.finfo(wide).min)  # finite: as masked_attention's
    return jax.nn.softmax(scores, axis=-1)


def rotate(x: jax.Array, positions: jax.Array, base: float = 10_000.0) -> jax.Array:
    """Rotary position embedding of queries or keys, in the half-split layout.

    Args:
      x: ``[B, L, H, Dh]`` with even ``Dh``.
      positions: ``[L]`` or ``[B, L]`` integers.
      base: the longest wave is ``2 pi base`` positions.

    Returns:
      Array of ``x``'s shape and dtype; feature pairs ``(i, i + Dh/2)`` are rotated by
      ``position * base**(-2 i / Dh)``.

    Raises:
      ValueError: if ``Dh`` is odd.

    Source: Su et al. 2021 (arXiv 2104.09864), eq. 15, 34; pairing as in GPT-NeoX.
    """
    half, odd = divmod(x.shape[-1], 2)
    if odd:
        raise ValueError(f"rotary positions need an even head width, not {x.shape[-1]}")
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None].astype(jnp.float32) * frequency
    angle = angle[..., None, :] if angle.ndim == 3 else angle[None, :, None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return turned.astype(x.dtype)
