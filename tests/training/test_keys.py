"""Random numbers of our keys are jax's, to the bit, in fewer kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnorm_jax.training.keys import WRITTEN_OUT, implementation

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


def test_another_default_of_jax_stands():
    assert implementation() is WRITTEN_OUT
    with jax.default_prng_impl("rbg"):
        assert implementation() is None
