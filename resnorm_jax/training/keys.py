"""JAX's random numbers, bit for bit, in a form that XLA compiles sooner for a CPU.

On a CPU JAX computes Threefry in a loop: ten kernels for each draw. A dropout of 32 x 26 x 128 takes a
second of processor to compile then, and 0.75 to 1 ms to run (jax 0.10.2); written out it is joined to
what reads it: one kernel, 0.15 seconds, 0.25 ms. On other platforms JAX writes it out as well.
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


def _counted(key: jax.Array, shape: tuple[int, ...]) -> Words:
    """Return the words of the counters 0, 1, ... in an array of a shape."""
    low = lax.iota(np.uint32, math.prod(shape)).reshape(shape)
    return threefry(key, jnp.zeros_like(low), low)


def _is_ours(shape: tuple[int, ...]) -> bool:
    """Whether the counters have one word, and JAX is not asked for its older numbering of them."""
    return math.prod(shape) < 2**32 and getattr(jax.config, "jax_threefry_partitionable", True)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    if not _is_ours(shape):
        return _JAX.random_bits(key, bit_width, shape)
    high, low = _counted(key, shape)
    if bit_width < 64:
        return (high ^ low).astype(f"uint{bit_width}")
    return high.astype("uint64") << np.uint64(32) | low.astype("uint64")


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.stack(_counted(key, shape), -1) if _is_ours(shape) else _JAX.split(key, shape)


def _fold_in(key: jax.Array, data: Any) -> jax.Array:
    return jnp.stack(threefry(key, jnp.zeros((), np.uint32), jnp.asarray(data, np.uint32)))


WRITTEN_OUT = extended.define_prng_impl(
    key_shape=(2,), seed=_JAX.seed, split=_split, random_bits=_random_bits, fold_in=_fold_in,
    name="threefry2x32_written_out", tag="fry_out",
)  # fmt: skip


def implementation() -> Any:
    """Return ``impl`` of `jax.random.key` and `jax.random.wrap_key_data`, for the numbers of jax's own.

    None, which is jax's default, where that is not Threefry.
    """
    config: Any = jax.config
    return WRITTEN_OUT if config.jax_default_prng_impl == _JAX.name else None
