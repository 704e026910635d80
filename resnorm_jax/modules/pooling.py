"""From a sequence to one vector, blind to padding."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from resnorm_jax.ops.masks import zero_padding
from resnorm_jax.registry import Registry


def mean_pool(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean over valid positions of ``x [B, L, D]``; zero for a row without any."""
    if mask is None:
        return jnp.mean(x, axis=1)
    # Summed in float32: hundreds of bfloat16 terms would lose their digits.
    valid = mask[..., None]
    total = jnp.sum(jnp.where(valid, x, 0), axis=1, dtype=jnp.promote_types(x.dtype, jnp.float32))
    return (total / jnp.maximum(jnp.sum(valid, axis=1), 1)).astype(x.dtype)


def statistics_pool(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean and standard deviation over valid positions of ``x [B, L, D]``: ``[B, 2 D]``.

    The deviation is the root of the biased variance plus 1e-6, which keeps its gradient finite.
    """
    mean = mean_pool(x, mask).astype(jnp.promote_types(x.dtype, jnp.float32))
    squares = jnp.square(x.astype(mean.dtype) - mean[:, None])
    deviation = jnp.sqrt(mean_pool(squares, mask) + 1e-6)
    return jnp.concatenate([mean, deviation], axis=-1).astype(x.dtype)


def max_pool(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Largest value over valid positions of ``x [B, L, D]``; zero for a row without any."""
    # Taken by its index: the gradient of jnp.max looks for elements equal to the maximum, and is
    # NaN where XLA rounded x otherwise in the fusion that looks.
    filled = x if mask is None else jnp.where(mask[..., None], x, jnp.finfo(x.dtype).min)
    largest = jnp.argmax(filled, axis=1, keepdims=True)
    return jnp.take_along_axis(zero_padding(x, mask), largest, axis=1)[:, 0]


def last_pool(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The last valid position of ``x [B, L, D]``."""
    if mask is None:
        return x[:, -1]
    last = jnp.max(jnp.where(mask, jnp.arange(x.shape[1]), 0), axis=1)
    return jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]


def first_pool(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The first position of ``x [B, L, D]``, where a class token or a tokenizer's own one stands."""
    return x[:, 0]


def pair_pool(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The first two positions of ``x [B, L, D]``, joined: ``[B, 2 D]``."""
    return x[:, :2].reshape(x.shape[0], -1)


def beside_pool(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Mean over valid positions of ``x [B, L, D]`` but the first; zero for a row without any."""
    return mean_pool(x[:, 1:], None if mask is None else mask[:, 1:])


@dataclass(frozen=True)
class Pooling:
    """A row: how a sequence becomes one vector.

    Attributes:
      name: name of the row.
      function: ``(x [B, L, D], mask)`` to ``[B, D]`` or more features.
      source: paper or words.
      class_token: whether a learned class token is put first.
      beside: names of further learned tokens, which stand after the class token.
    """

    name: str
    function: Callable[[jax.Array, jax.Array | None], jax.Array]
    source: str
    class_token: bool = False
    beside: tuple[str, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """Names of the learned tokens that are put first."""
        return (*(("cls",) if self.class_token else ()), *self.beside)


POOLING: Registry[Pooling] = Registry(
    "pooling",
    (
        Pooling("mean", mean_pool, "mean of valid positions"),
        Pooling("statistics", statistics_pool, "Snyder et al. 2018 (x-vectors, ICASSP)"),
        Pooling("cls", first_pool, "Devlin et al. 2018 (arXiv 1810.04805), section 3", True),
        Pooling(
            "distilled", first_pool, "the class token, with a distillation token beside it: Touvron et "
            "al. 2020 (arXiv 2012.12877), section 4", True, ("distillation",),
        ),
        Pooling(
            "distilled_pair", pair_pool, "both of these tokens, one after the other, as the two heads "
            "of Touvron et al. 2020 (arXiv 2012.12877), section 4, read them", True, ("distillation",),
        ),
        Pooling(
            "patches", beside_pool, "mean of all but a class token put first: Bao et al. 2021 (arXiv "
            "2106.08254), section 2.5", True,
        ),
        Pooling("first", first_pool, "first position, where the tokenizer puts its own token"),
        Pooling("last", last_pool, "last valid position"),
        Pooling("max", max_pool, "largest over valid positions"),
    ),
)  # fmt: skip
