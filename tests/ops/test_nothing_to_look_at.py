"""A query that may look at nothing: 0 from attention, however much padding follows."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit
from tiers import every

import resnorm_jax as rn
from resnorm_jax.ops.attention import attention_weights, chunks

B, T, H, K = 2, 6, 2, 4
HEARD = np.tril(np.ones((T, T), bool))
HEARD[2] = False  # position 2 may look at nothing


def wide(array, length, axes=(1,)):
    """Lay zeros behind, as padding."""
    pads = [(0, length - T if axis in axes else 0) for axis in range(array.ndim)]
    return np.pad(array, pads)


def arrays():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(B, T, H, K)).astype(np.float32) for _ in range(3)]


def told(how, length):
    """The mask and lengths under which ``T`` of ``length`` positions are valid."""
    attend = wide(HEARD, length, (0, 1))
    valid = np.arange(length) < T
    if how == "mask":
        return {"mask": (attend & valid)[None, None]}
    return {"mask": attend[None, None], "lengths": np.full(B, T, np.int32)}


@pytest.mark.parametrize("how", ["mask", "lengths"])
@pytest.mark.parametrize("way", every(["xla", "chunked", "dropout"], ["chunked"]))
def test_values_and_gradients_do_not_depend_on_padding(monkeypatch, way, how):
    monkeypatch.setattr(chunks, "CHUNK", 2)
    monkeypatch.setattr(chunks, "WIDTHS", 0)
    key = {"dropout_rate": 1e-9, "dropout_key": jax.random.key(0)} if way == "dropout" else {}
    implementation = "xla" if way == "dropout" else way
    weights = np.random.default_rng(1).normal(size=(B, T, H, K)).astype(np.float32)

    @partial(quick_jit, static_argnums=0)
    def run(length, *inputs):
        def attend(*inputs):
            padded = (jnp.pad(a, [(0, 0), (0, length - T), (0, 0), (0, 0)]) for a in inputs)
            options = {"implementation": implementation, **key, **told(how, length)}
            return rn.masked_attention(*padded, **options)[:, :T]

        out, pullback = jax.vjp(attend, *inputs)
        return out, pullback(weights)

    short, long = (run(length, *arrays()) for length in (T, 10))
    chex.assert_tree_all_finite(short)
    assert not np.asarray(short[0])[:, 2].any()
    chex.assert_trees_all_close(long, short, rtol=1e-6, atol=1e-6)


def test_its_weights_are_zero_and_those_of_others_sum_to_one():
    q, k, _ = arrays()
    weights = attention_weights(q, k, HEARD)
    total = np.asarray(weights).sum(-1)
    np.testing.assert_allclose(total[..., 2], 0)
    np.testing.assert_allclose(np.delete(total, 2, -1), 1, rtol=1e-6)


@pytest.mark.table
def test_an_encoders_output_does_not_depend_on_padding():
    encoder = rn.TransformerEncoder(depth=2, heads=2)
    x = np.random.default_rng(0).normal(size=(B, T, 8)).astype(np.float32)

    @partial(quick_jit, static_argnums=0)
    def run(length, x):
        variables = encoder.init(jax.random.key(0), x)
        mask = np.broadcast_to(np.arange(length) < T, (B, length))
        padded, look = jnp.pad(x, [(0, 0), (0, length - T), (0, 0)]), wide(HEARD, length, (0, 1))
        return encoder.apply(variables, padded, mask, attention_mask=look)[:, :T]

    chex.assert_trees_all_close(run(10, x), run(T, x), rtol=1e-5, atol=1e-5)
