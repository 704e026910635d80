"""Masked attention. Not what this library is about: JAX's own does the work."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp


def masked_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    *,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    implementation: Literal["xla", "cudnn"] | None = None,
) -> jax.Array:
    """Scaled dot-product attention ``softmax(q k^T / sqrt(Dh)) v`` over the allowed keys.

    Args:
      query: ``[B, T, H, Dh]``.
      key: ``[B, S, H, Dh]``.
      value: ``[B, S, H, Dh]``.
      mask: boolean, broadcastable to ``[B, H, T, S]``; True where a query may look at a key. A query
        that may look at nothing gets the mean of all values, which is finite.
      dropout_rate: dropout of the attention weights; 0 uses `jax.nn.dot_product_attention`.
      dropout_key: random key for it; None turns dropout off.
      implementation: that function's ``implementation``: ``"xla"``, ``"cudnn"`` or None.

    Returns:
      ``[B, T, H, Dh]`` in the dtype of ``query``.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), eq. 1.
    """
    if dropout_rate and dropout_key is not None:
        # jax.nn.dot_product_attention has no dropout; flax's has.
        return nn.dot_product_attention(
            query, key, value, mask=mask, dropout_rng=dropout_key, dropout_rate=dropout_rate,
            broadcast_dropout=False, force_fp32_for_softmax=True,
        ).astype(query.dtype)  # fmt: skip
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)


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
