"""JAX's random numbers, bit for bit, in a form that XLA compiles sooner for a CPU.

On a CPU JAX computes Threefry in a loop: ten kernels for each draw. A dropout of 32 x 26 x 128 takes a
second of processor to compile then, and 0.75 to 1 ms to run (jax 0.10.2); written out it is joined to
what reads it: one kernel, 0.15 seconds, 0.25 ms. On other platforms JAX writes it out as well.

Where the rows of a batch are spread over devices, a key has a place: what is drawn with it are rows of
one draw for the whole batch. So a row has the same dropout on any number of devices.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import random as extended

Words = tuple[jax.Array, jax.Array]
_JAX = extended.threefry_prng_impl
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


@jax.jit  # traced once for each shape
def threefry(key: jax.Array, high: jax.Array, low: jax.Array) -> Words:
    """Return the twenty rounds of Threefry-2x32 of counters, as two words each.

    Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011).

    Args:
      key: ``[2]`` uint32.
      high: words of the counters, uint32, of any shape.
      low: the other words, of the same shape.
    """
    one, two = key[0], key[1]
    schedule = (one, two, one ^ two ^ _PARITY)
    x, y = high + one, low + two
    for group in range(5):
        for turn in map(np.uint32, _ROTATIONS[group % 2]):
            x = x + y
            y = x ^ (y << turn | y >> (np.uint32(32) - turn))
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def _counted(key: jax.Array, shape: tuple[int, ...], place: jax.Array | None = None) -> Words:
    """Return the words of the counters in an array of a shape, which follows ``place`` such arrays."""
    size = math.prod(shape)
    low = lax.iota(np.uint32, size).reshape(shape)
    if place is None:
        return threefry(key, jnp.zeros_like(low), low)
    more, first = _product(place, size)
    low = low + first
    return threefry(key, more + (low < first).astype(np.uint32), low)


def _product(one: jax.Array, two: int) -> Words:
    """Return the high and the low word of a product of 32-bit numbers."""
    half, mask = np.uint32(16), np.uint32(2**16 - 1)
    high, low = np.uint32(two >> 16), np.uint32(two & 2**16 - 1)
    middle = (one >> half) * low + ((one & mask) * low >> half)
    carried = (one & mask) * high + (middle & mask)
    return (one >> half) * high + (middle >> half) + (carried >> half), one * np.uint32(two)


def _is_ours(shape: tuple[int, ...]) -> bool:
    """Whether the counters have one word, and JAX is not asked for its older numbering of them."""
    return math.prod(shape) < 2**32 and getattr(jax.config, "jax_threefry_partitionable", True)


def _random_bits(
    key: jax.Array, bit_width: int, shape: tuple[int, ...], place: jax.Array | None = None
) -> jax.Array:
    if not _is_ours(shape):
        own = key if place is None else jnp.where(place == 0, key, _fold_in(key, place))
        return _JAX.random_bits(own, bit_width, shape)
    high, low = _counted(key, shape, place)
    if bit_width < 64:
        return (high ^ low).astype(f"uint{bit_width}")
    return high.astype("uint64") << np.uint64(32) | low.astype("uint64")


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    if not _is_ours(shape):
        return _JAX.split(key, shape)
    return lax.optimization_barrier(jnp.stack(_counted(key, shape), -1))


def _fold_in(key: jax.Array, data: Any) -> jax.Array:
    # The barrier: else XLA derives a key again for each element that is drawn with it, in loops that
    # LLVM's vectorizer did not come to an end with in 38 minutes (jaxlib 0.12.0.1).
    words = threefry(key, jnp.zeros((), np.uint32), jnp.asarray(data, np.uint32))
    return lax.optimization_barrier(jnp.stack(words))


WRITTEN_OUT = extended.define_prng_impl(
    key_shape=(2,), seed=_JAX.seed, split=_split, random_bits=_random_bits, fold_in=_fold_in,
    name="threefry2x32_written_out", tag="fry_out",
)  # fmt: skip

# A key's two words, and its place.
_PLACED = extended.define_prng_impl(
    key_shape=(3,),
    seed=lambda seed: _at(_JAX.seed(seed), np.uint32(0)),
    split=lambda key, shape: _at(_split(key[:2], shape), key[2]),
    random_bits=lambda key, width, shape: _random_bits(key[:2], width, shape, key[2]),
    fold_in=lambda key, data: _at(_fold_in(key[:2], data), key[2]),
    name="threefry2x32_placed",
    tag="fry_at",
)


def _at(words: jax.Array, place: Any) -> jax.Array:
    place = jnp.asarray(place, np.uint32)
    lead = jnp.broadcast_shapes(words.shape[:-1], place.shape)
    last = jnp.broadcast_to(place[..., None], (*lead, 1))
    return jnp.concatenate([jnp.broadcast_to(words, (*lead, 2)), last], -1)


def placed(key: jax.Array, place: Any) -> jax.Array:
    """Return a key that draws the rows of a part of a batch, of one draw for all of it.

    What is drawn in the shape ``[b, ...]`` are the rows ``place * b`` to ``(place + 1) * b - 1`` of
    what ``key`` draws for a batch of more rows. Keys split from it, or folded, have its place too.

    Args:
      key: of `implementation`; another one gives keys that have nothing in common.
      place: of the part, counted from 0; all parts are equal in size.

    >>> import jax
    >>> whole = jax.random.key(0, impl=WRITTEN_OUT)
    >>> rows = jax.random.uniform(whole, (6, 2))[2:4]
    >>> bool((jax.random.uniform(placed(whole, 1), (2, 2)) == rows).all())
    True
    """
    if not _ours(key):
        return jax.random.fold_in(key, place)
    return jax.random.wrap_key_data(_at(jax.random.key_data(key)[..., :2], place), impl=_PLACED)


def parts(key: jax.Array, count: int) -> jax.Array:
    """Return keys for a batch whose rows are taken in ``count`` equal parts, one after the other.

    With a place they draw what ``key`` draws for all rows at once; without they are split from it.
    """
    if not _has_place(key):
        return jax.random.split(key, count)
    words = jax.random.key_data(key)
    return placed(key, words[2] * np.uint32(count) + lax.iota(np.uint32, count))


def everywhere(key: jax.Array) -> jax.Array:
    """Return a key for what has no axis of rows: it draws the same on all devices."""
    return placed(key, 0) if _has_place(key) else key


def _has_place(key: jax.Array) -> bool:
    return str(key.dtype) == "key<fry_at>"


def _ours(key: jax.Array) -> bool:
    return _has_place(key) or str(key.dtype) == "key<fry_out>"


def implementation() -> Any:
    """Return ``impl`` of `jax.random.key` and `jax.random.wrap_key_data`, for the numbers of jax's own.

    None, which is jax's default, where that is not Threefry.
    """
    config: Any = jax.config
    return WRITTEN_OUT if config.jax_default_prng_impl == _JAX.name else None
