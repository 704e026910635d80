"""Rotary positions."""

import jax
import jax.numpy as jnp


def rotate(x: jax.Array, positions: jax.Array, base: float | jax.Array = 10_000.0) -> jax.Array:
    """Rotary position embedding of queries or keys, in the half-split layout.

    Args:
      x: ``[B, L, H, Dh]`` with even ``Dh``.
      positions: ``[L]`` or ``[B, L]`` integers.
      base: the longest wave is ``2 pi base`` positions; a number or a scalar.

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
