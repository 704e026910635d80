"""Statistics of what flows through a stack: small pure functions, padding never counted.

Arrays have any leading axes (a stack of layers), then ``[B, L, D]`` positions or ``[B, H, T, S]``
weights. ``valid [B, L]`` is True at positions that count. All results are float32 at least.
"""

import jax
import jax.numpy as jnp

from resnorm_jax.modules.hooks import euclidean_norm


def _clean(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Zero, NaN too, where not valid; float32 at least."""
    x = jnp.where(valid[..., None], x, 0)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def root_mean_square(x: jax.Array, valid: jax.Array) -> jax.Array:
    """``sqrt(mean x^2)`` over valid positions and features: ``[...]`` of ``x [..., B, L, D]``."""
    entries = jnp.maximum(jnp.sum(valid), 1) * x.shape[-1]
    return euclidean_norm(_clean(x, valid), axis=(-3, -2, -1)) / jnp.sqrt(entries)


def power(x: jax.Array, valid: jax.Array) -> jax.Array:
    """``mean x^2`` over valid positions and features: ``[...]`` of ``x [..., B, L, D]``."""
    return root_mean_square(x, valid) ** 2


def ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Their quotient; NaN where the denominator is 0, where there is none."""
    safe = jnp.where(denominator > 0, denominator, 1)
    return jnp.where(denominator > 0, numerator / safe, jnp.nan)


def mean_pairwise_cosine(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean cosine between the different valid rows of ``x [..., n, D]``: ``[...]``.

    ``(|sum u|^2 - n) / (n (n - 1))`` with unit rows u; a zero row has cosine 0 with all.

    Args:
      x: ``[..., n, D]``.
      valid: ``[..., n]``, broadcast.

    Returns:
      ``[...]``; NaN where fewer than two rows are valid.
    """
    x = _clean(x, valid)
    size = euclidean_norm(x, axis=-1)[..., None]
    unit = x / jnp.where(size > 0, size, 1)
    count = jnp.sum(valid, axis=-1).astype(unit.dtype)
    whole = jnp.sum(jnp.sum(unit, axis=-2) ** 2, axis=-1)
    own = jnp.sum(unit**2, axis=(-2, -1))
    pairs = count * (count - 1)
    return jnp.where(pairs > 0, (whole - own) / jnp.maximum(pairs, 1), jnp.nan)


def token_cosine(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean over examples of the mean cosine between their positions: ``[...]`` of ``[..., B, L, D]``.

    Examples with fewer than two valid positions are left out. 1: all positions of an example are
    parallel (rank collapse, Dong et al. 2021, arXiv 2103.03404).
    """
    each = mean_pairwise_cosine(x, valid)
    return jnp.nanmean(each, axis=-1)


def attention_entropy(weights: jax.Array, valid: jax.Array) -> jax.Array:
    """Entropy of attention over ``log n``, n the valid keys; mean over heads and valid queries.

    Args:
      weights: ``[..., B, H, T, S]``, 0 at keys that are not valid.
      valid: ``[B, T]``, T = S.

    Returns:
      ``[...]`` between 0 (one key) and 1 (all keys alike); NaN where no example has two valid keys.
    """
    keys = jnp.sum(valid, axis=-1)  # [B]
    p = jnp.where(valid[:, None, None, :], weights, 0)
    nats = -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0), axis=-1)
    share = nats / jnp.log(jnp.maximum(keys, 2))[:, None, None]
    counted = valid[:, None, :] & (keys > 1)[:, None, None]  # [B, 1, T]
    counted = jnp.broadcast_to(counted, share.shape[-3:])
    total = jnp.sum(jnp.where(counted, share, 0), axis=(-3, -2, -1))
    return ratio(total, jnp.sum(counted).astype(total.dtype))


def mean_and_error(samples: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean of ``samples [n]`` and its standard error ``sd / sqrt(n)``, sd with ``n - 1``."""
    return jnp.mean(samples), jnp.std(samples, ddof=1) / jnp.sqrt(samples.shape[0])


def valid_positions(mask: jax.Array | None, weight: jax.Array, x: jax.Array) -> jax.Array:
    """``[B, L]``: positions of ``x [B, L, D]`` that are no padding, in rows that fill no batch."""
    real = jnp.broadcast_to(weight[:, None] > 0, x.shape[:2])
    return real if mask is None else real & mask
