"""Masks: True where a position is valid (padding) or may be attended to (attention)."""

import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask, check_axes
from resnorm_jax.errors import ShapeError


def zero_padding(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Return ``x`` with padded positions set to zero, so that what stood there, NaN too, is gone.

    Args:
      x: ``[B, L, ...]``.
      mask: ``[B, L]`` boolean, True where valid; None leaves ``x`` as it is.

    Returns:
      Array of ``x``'s shape and dtype; no gradient flows to padded positions.

    Raises:
      TypeError: if the mask is one of numbers.
    """
    mask = as_mask("mask", mask)
    if mask is None:
        return x
    return jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, 0)


def attention_mask(
    padding_mask: jax.Array | None, mask: jax.Array | None = None
) -> jax.Array | None:
    """Join a padding mask of the keys and an attention mask to ``[B or 1, H or 1, T, S]``.

    Args:
      padding_mask: ``[B, S]``, True where a key is valid, or None.
      mask: ``[T, S]``, ``[B, T, S]`` or ``[B, H, T, S]``, True where a query may look, or None.

    Returns:
      Boolean mask that broadcasts to ``[B, H, T, S]``, or None when both are None.

    Raises:
      TypeError: if a mask is one of numbers.
      ValueError: if ``mask`` has another rank.
    """
    padding_mask, mask = as_mask("mask", padding_mask), as_mask("attention_mask", mask)
    check_axes(mask=(padding_mask, "B S"))
    if mask is not None:
        if mask.ndim not in (2, 3, 4):
            raise ShapeError(
                f"attention_mask has {mask.ndim} dimensions, shape {mask.shape}: must be 2, 3 or 4: "
                "[T, S], [B, T, S] or [B, H, T, S]"
            )
        mask = {2: mask[None, None], 3: mask[:, None]}[mask.ndim] if mask.ndim < 4 else mask
    if padding_mask is None:
        return mask
    keys = padding_mask[:, None, None, :]
    return keys if mask is None else jnp.logical_and(mask, keys)


def valid_positions(
    mask: jax.Array | None, lengths: jax.Array | None, count: int
) -> jax.Array | None:
    """Return which positions are valid: ``[B, L]``, True where mask and lengths both say so.

    Args:
      mask: ``[B, L]``, True where valid, or None.
      lengths: ``[B]`` integers: the first so many positions of a row are valid; or None.
      count: ``L``.

    >>> valid_positions(None, jnp.array([1, 3]), 3).tolist()
    [[True, False, False], [True, True, True]]
    """
    mask = as_mask("mask", mask)
    if lengths is None:
        return mask
    first = jnp.arange(count) < jnp.asarray(lengths)[:, None]
    return first if mask is None else jnp.logical_and(mask, first)


def join_lengths(mask: jax.Array | None, lengths: jax.Array | None, keys: int) -> jax.Array | None:
    """Return an attention mask, and of each row's keys only the first ``lengths``.

    Args:
      mask: broadcastable to ``[B, H, T, S]``, or None.
      lengths: ``[B]`` integers, or None.
      keys: ``S``.
    """
    mask = as_mask("mask", mask)
    if lengths is None:
        return mask
    first = valid_positions(None, lengths, keys)
    assert first is not None
    first = first[:, None, None, :]
    return first if mask is None else jnp.logical_and(mask, first)


def attending(mask: jax.Array | None) -> jax.Array | None:
    """Return which queries may look at any key: ``[B or 1, T or 1, H or 1, 1]``, or None for all.

    Args:
      mask: broadcastable to ``[B, H, T, S]``, or None.

    >>> attending(jnp.array([[[[True, False], [False, False]]]])).ravel().tolist()
    [True, False]
    """
    if mask is None:
        return None
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    return jnp.swapaxes(mask.any(-1, keepdims=True), 1, 2)


def masked_row_mean(
    x: jax.Array, mask: jax.Array | None, given: jax.Array | None = None
) -> jax.Array:
    """Mean over the valid positions of each row: ``[B, D]`` of ``x [B, L, D]``, or ``given``.

    Args:
      x: ``[B, L, D]``, zero where not valid.
      mask: ``[B, L]``, True where valid; None for all.
      given: returned as it is, where it is not None.
    """
    if given is not None:
        return given
    if mask is None:
        return jnp.mean(x, axis=1)
    count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return (jnp.sum(x, axis=1, dtype=wide) / count).astype(x.dtype)


def causal_mask(length: int) -> jax.Array:
    """``[L, L]``: True where the key (last axis) does not come after the query.

    >>> causal_mask(2).tolist()
    [[True, False], [True, True]]
    """
    return jnp.tril(jnp.ones((length, length), bool))


def within_window(
    mask: jax.Array | None, queries: int, keys: int, window: int | jax.Array | None
) -> jax.Array | None:
    """Return an attention mask, and of the keys only those near the query.

    Args:
      mask: broadcastable to ``[B, H, T, S]``, or None.
      queries: ``T``.
      keys: ``S``.
      window: how many positions a query sees to either side; None for all.

    >>> within_window(None, 3, 3, 1).tolist()
    [[True, True, False], [True, True, True], [False, True, True]]
    """
    if window is None or (isinstance(window, int) and window >= max(queries, keys) - 1):
        return mask
    near = jnp.abs(jnp.arange(queries)[:, None] - jnp.arange(keys)) <= window
    return near if mask is None else jnp.logical_and(mask, near)
