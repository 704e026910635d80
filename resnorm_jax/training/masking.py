"""Inputs with parts masked, for pretraining: pure functions of a key."""

import jax
import jax.numpy as jnp

BERT = (0.8, 0.1)  # of the chosen tokens: masked, replaced by a random one; the rest is kept


def mask_tokens(
    key: jax.Array,
    x: jax.Array,
    valid: jax.Array,
    rate: float,
    vocabulary: int,
    mask_token: int = 0,
    plain: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Mask tokens: each valid position is chosen with a probability.

    Of the chosen ones 80 % become the mask token, 10 % a random one and 10 % stay as they are (all
    become the mask token with ``plain``).

    Args:
      key: of this batch.
      x: tokens ``[B, L]``.
      valid: ``[B, L]`` boolean; other positions are never chosen.
      rate: probability of a position.
      vocabulary: number of tokens; random ones are 1 to ``vocabulary - 1``, as 0 is padding.
      mask_token: its id.
      plain: whether all chosen ones are masked.

    Returns:
      Tokens ``[B, L]``, and which positions were chosen, ``[B, L]``.

    Source: Devlin et al. 2018 (arXiv 1810.04805), section 3.1 and appendix A.1; there 15 % of a row's
    positions are chosen exactly, here each by itself.
    """
    choose, how, draw = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(choose, rate, x.shape) & valid
    if plain:
        return jnp.where(chosen, mask_token, x), chosen
    share = jax.random.uniform(how, x.shape)
    other = jax.random.randint(draw, x.shape, 1, vocabulary, x.dtype)
    masked, replaced = BERT
    new = jnp.where(share < masked, mask_token, jnp.where(share < masked + replaced, other, x))
    return jnp.where(chosen, new, x), chosen


def mask_stretches(
    key: jax.Array, shape: tuple[int, int, int], rate: float, length: float
) -> jax.Array:
    """Choose stretches of each channel, each channel by itself: ``[B, L, C]`` boolean.

    A two-state chain along the positions: a masked stretch goes on with probability ``1 - 1 / length``,
    an open one begins to be masked with ``rate / (length (1 - rate))``. So masked stretches have
    geometric lengths of this mean, and a share ``rate`` of all positions is masked.

    Args:
      key: of this batch.
      shape: ``B, L, C``.
      rate: share of positions, under 1; ``rate / (1 - rate)`` at most ``length``.
      length: mean of a masked stretch, at least 1.

    Source: Zerveas et al. 2021 (TST, arXiv 2010.02803), section 3.3 and appendix;
    geom_noise_mask_single in src/datasets/dataset.py of gzerveas/mvts_transformer.
    """
    first, along = jax.random.split(key)
    start = jax.random.bernoulli(first, rate, (shape[0], 1, shape[2]))
    u = jax.random.uniform(along, shape)
    # The next state after an open position, and after a masked one; both are functions of the position
    # alone, and functions are composed side by side.
    begins, goes_on = u < rate / (length * (1 - rate)), u < 1 - 1 / length

    def then(one: tuple[jax.Array, jax.Array], two: tuple[jax.Array, jax.Array]):
        after_open, after_masked = two
        return tuple(jnp.where(state, after_masked, after_open) for state in one)

    after_open, after_masked = jax.lax.associative_scan(then, (begins, goes_on), axis=1)
    return jnp.where(start, after_masked, after_open)
