"""Random numbers of our keys are jax's, to the bit, in fewer kernels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnorm_jax.ops.keys import WRITTEN_OUT, everywhere, implementation, parts, placed, threefry

SEEDS = (0, 1, 2**31, 2**32 - 1)
DRAWS = {
    "uniform": lambda key: jax.random.uniform(key, (3, 5)),
    "normal": lambda key: jax.random.normal(key, (7,)),
    "dropout": lambda key: jax.random.bernoulli(key, 0.9, (2, 3, 4)),
    "a scalar": lambda key: jax.random.uniform(key),
    "nothing": lambda key: jax.random.uniform(key, (0, 3)),
    "8 bits": lambda key: jax.random.bits(key, (9,), "uint8"),
    "16 bits": lambda key: jax.random.bits(key, (2, 2), "uint16"),
    "folded": lambda key: jax.random.uniform(jax.random.fold_in(key, 2**32 - 2), (3,)),
    "split": lambda key: jax.vmap(jax.random.uniform)(jax.random.split(key, 5)),
    "split in a shape": lambda key: jax.random.key_data(jax.random.split(key, (2, 3))),
    "bfloat16": lambda key: jax.random.normal(key, (5,), jnp.bfloat16),
    "permuted": lambda key: jax.random.permutation(key, 17),
}


def ours(seed) -> jax.Array:
    return jax.random.wrap_key_data(
        jax.random.key_data(jax.random.key(seed, impl="threefry2x32")), impl=WRITTEN_OUT
    )


def equal(draw, seed) -> None:
    expected = np.asarray(draw(jax.random.key(seed, impl="threefry2x32")))
    found = np.asarray(draw(ours(seed)))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_numbers_are_jaxs(draw):
    equal(jax.jit(draw), 2**32 - 1)


def test_seeds_are_jaxs():
    for seed in SEEDS:
        equal(jax.random.key_data, seed)
        key = jax.jit(lambda seed: jax.random.key(seed, impl=WRITTEN_OUT))(np.uint32(seed))
        expected = jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))
        np.testing.assert_array_equal(jax.random.key_data(key), expected)


@pytest.mark.table
def test_64_bits_and_the_older_numbering_are_jaxs():
    with jax.enable_x64(True):
        equal(lambda key: jax.random.bits(key, (5,), "uint64"), 3)
    with jax.threefry_partitionable(False):
        equal(DRAWS["uniform"], 4)
        equal(DRAWS["split"], 4)


def test_a_draw_is_few_kernels():
    text = jax.jit(DRAWS["dropout"]).lower(ours(0)).compile().as_text()
    assert " while(" not in text
    assert text.count(" fusion(") <= 2


def test_keys_are_not_derived_again_in_the_loop_that_draws():
    """Else a loop has 130 xors and more, with which LLVM did not come to an end (jaxlib 0.12.0.1)."""

    def drawn(words, x, step):
        key = jax.random.fold_in(jax.random.wrap_key_data(words, impl=WRITTEN_OUT), step)
        for number in range(4):
            key = jax.random.fold_in(jax.random.split(key)[1], number)
        return jnp.where(jax.random.bernoulli(placed(key, step), 0.9, x.shape), x / 0.9, 0)

    given = jnp.zeros(2, jnp.uint32), jnp.ones((16, 20, 8)), jnp.uint32(3)
    text = jax.jit(drawn).lower(*given).compile().as_text()
    loops = re.split(r"^\}", text, flags=re.MULTILINE)
    assert 20 <= max(loop.count(" xor(") for loop in loops) <= 50


def test_another_default_of_jax_stands():
    assert implementation() is WRITTEN_OUT
    with jax.default_prng_impl("rbg"):
        assert implementation() is None


ROWS = {
    "uniform": lambda key, rows: jax.random.uniform(key, (rows, 3, 2)),
    "dropout": lambda key, rows: jax.random.bernoulli(key, 0.5, (rows, 7)),
    "a number a row": lambda key, rows: jax.random.bits(key, (rows,), "uint8"),
    "integers": lambda key, rows: jax.random.randint(key, (rows, 5), 1, 90),
    "folded": lambda key, rows: jax.random.normal(jax.random.fold_in(key, 7), (rows, 3)),
    "split": lambda key, rows: jax.random.normal(jax.random.split(key, 3)[2], (rows, 3)),
}


@pytest.mark.parametrize("draw", ROWS.values(), ids=ROWS)
def test_a_place_draws_its_rows_of_the_whole(draw):
    whole = np.asarray(draw(ours(5), 12))
    for count in (1, 2, 3, 12):
        size = 12 // count
        found = [draw(placed(ours(5), place), size) for place in range(count)]
        np.testing.assert_array_equal(np.concatenate(found), whole)
        mapped = jax.vmap(lambda key, size=size: draw(key, size))(parts(placed(ours(5), 0), count))
        np.testing.assert_array_equal(np.concatenate(mapped), whole)


def test_parts_of_a_part_are_rows_of_the_whole():
    whole = np.asarray(jax.random.uniform(ours(3), (12, 2)))
    keys = parts(placed(ours(3), 2), 2)  # rows 8 to 11, in two parts
    found = [jax.random.uniform(key, (2, 2)) for key in keys]
    np.testing.assert_array_equal(np.concatenate(found), whole[8:])
    equal = jax.random.uniform(everywhere(placed(ours(3), 2)), (4, 2))
    np.testing.assert_array_equal(equal, whole[:4])


def test_counters_over_32_bits_carry():
    key = placed(ours(1), 2**31 + 3)  # of 2^31 + 3 rows of 5 numbers and more
    found = jax.random.bits(key, (1, 5))
    counters = (2**31 + 3) * 5 + np.arange(5, dtype=np.uint64)
    high, low = (jnp.asarray(words, jnp.uint32) for words in (counters >> 32, counters % 2**32))
    one, two = threefry(jax.random.key_data(ours(1)), high, low)
    np.testing.assert_array_equal(found[0], one ^ two)


def test_keys_without_a_place_are_split():
    key = jax.random.key(2)
    words = jax.random.key_data
    np.testing.assert_array_equal(words(parts(key, 3)), words(jax.random.split(key, 3)))
    assert everywhere(key) is key
    with jax.default_prng_impl("rbg"):
        other = placed(jax.random.key(2), 1)
    assert not np.array_equal(words(other), words(jax.random.key(2, impl="rbg")))
