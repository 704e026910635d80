"""Heads of keys, scale and bias of attention against PyTorch in float64; relative positions by row."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from oracles import quick_jit, worst
from tiers import every

from resnorm_jax import masked_attention
from resnorm_jax.errors import ShapeError
from resnorm_jax.ops.attention import attention_weights, chunks
from resnorm_jax.ops.attention.relative import (
    RELATIVE,
    along_diagonals,
    distances,
    grid_rows,
    log_buckets,
    two_sided_buckets,
)

B, T, S, H, G, K = 2, 5, 6, 4, 2, 3


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 2)
    monkeypatch.setattr(chunks, "WIDTHS", 0)
    monkeypatch.setattr(chunks, "SCORES", {"cpu": 2 * S})


def arrays(heads=G, bias=(1, H, T, S)):
    rng = np.random.default_rng(0)
    shapes = ((B, T, H, K), (B, S, heads, K), (B, S, heads, K), bias)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def masked():
    mask = np.random.default_rng(1).random((B, 1, T, S)) < 0.6
    mask[..., 0] = True
    return mask


def expected(q, k, v, bias, mask, scale, cotangent):
    """Values and gradients in float64 by PyTorch's own derivatives."""
    leaves = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in (q, k, v, bias)]
    q, k, v, bias = leaves
    k, v = (a.repeat_interleave(H // a.shape[2], dim=2) for a in (k, v))
    scores = torch.einsum("bthk,bshk->bhts", q, k) * scale + bias
    scores = scores.masked_fill(~torch.tensor(mask), -torch.inf)
    weights = scores.softmax(-1)
    out = torch.einsum("bhts,bshk->bthk", weights, v)
    out.backward(torch.tensor(cotangent, dtype=torch.float64))
    return out.detach().numpy(), [a.grad.numpy() for a in leaves], weights.detach().numpy()


@pytest.mark.parametrize(
    "case",
    every(
        [
            (i, g, b)
            for i in ("xla", "chunked")
            for g in (1, G)
            for b in ((1, H, T, S), (B, 1, T, S))
        ],
        [("xla", G, (1, H, T, S)), ("chunked", 1, (B, 1, T, S))],
    ),
)
def test_values_and_gradients(case):
    implementation, heads, shape = case
    given, mask, scale = arrays(heads, shape), masked(), 0.3
    cotangent = np.random.default_rng(2).normal(size=(B, T, H, K)).astype(np.float32)

    @quick_jit
    def run(q, k, v, bias):
        def attend(q, k, v, bias):
            return masked_attention(
                q, k, v, mask, bias=bias, scale=scale, implementation=implementation
            )

        out, pullback = jax.vjp(attend, q, k, v, bias)
        return out, pullback(jnp.asarray(cotangent))

    out, gradients = run(*given)
    values, theirs, weights = expected(*given, mask, scale, cotangent)
    assert worst(out, values) < 1e-6
    for ours, true in zip(gradients, theirs, strict=True):
        assert worst(ours, true) < 3e-6
    q, k, _, bias = given
    assert worst(attention_weights(q, k, mask, bias=bias, scale=scale), weights) < 1e-6


def test_with_dropout_the_scale_and_the_heads_are_the_same():
    q, k, v, bias = arrays()
    key = jax.random.key(0)
    attend = partial(masked_attention, dropout_rate=0.5, dropout_key=key, implementation="xla")
    grouped = attend(q, k, v, bias=bias, scale=0.3)
    spread = attend(q * (0.3 * K**0.5), k.repeat(2, 2), v.repeat(2, 2), bias=bias)
    assert worst(grouped, spread) < 1e-6


def test_heads_that_do_not_fit():
    q, k, v, _ = arrays(heads=3)
    with pytest.raises(ShapeError, match="key has 3 heads, which do not divide the 4 of query"):
        masked_attention(q, k, v)


@pytest.mark.parametrize(("queries", "keys"), [(T, S), (1, 1), (1, 3), (3, 1)])
def test_along_diagonals(queries, keys):
    every_distance = np.broadcast_to(distances(queries, keys), (2, queries, queries + keys - 1))
    found = along_diagonals(jnp.asarray(every_distance), keys)
    np.testing.assert_array_equal(found[1], np.arange(queries)[:, None] - np.arange(keys))


@pytest.mark.parametrize(("buckets", "positions"), [(256, 512), (6, 10), (32, 128), (48, 96)])
def test_log_buckets_are_those_of_transformers(buckets, positions):
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    far = np.arange(-3 * positions, 3 * positions + 1)
    theirs = make_log_bucket_position(torch.tensor(far), buckets, positions).long().numpy()
    theirs = np.clip(theirs + buckets, 0, 2 * buckets - 1)
    np.testing.assert_array_equal(log_buckets(far, buckets, positions), theirs)


@pytest.mark.parametrize(("buckets", "positions"), [(32, 128), (8, 20), (64, 512)])
def test_two_sided_buckets_are_those_of_transformers(buckets, positions):
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    far = np.arange(-3 * positions, 3 * positions + 1)
    theirs = MPNetEncoder.relative_position_bucket(torch.tensor(-far), buckets, positions).numpy()
    np.testing.assert_array_equal(two_sided_buckets(far, buckets, positions), theirs)


@pytest.mark.parametrize("name", ["disentangled", "bias"])
@pytest.mark.parametrize(("buckets", "positions"), [(4, 4), (5, 4), (7, 30), (32, 128)])
def test_scores_of_a_length_that_is_a_symbol_are_those_of_each_length(name, buckets, positions):
    index = RELATIVE.get(name).index
    (symbol,) = jax.export.symbolic_shape("l")

    def scores(x):
        length = x.shape[0]
        at = jnp.asarray(index(length, buckets, positions))
        return along_diagonals(jnp.broadcast_to(at, (2, length, 2 * length - 1)), length)

    made = jax.export.export(jax.jit(scores))(jax.ShapeDtypeStruct((symbol,), np.float32))
    for length in (1, 6, 500):
        x = np.zeros(length, np.float32)
        np.testing.assert_array_equal(made.call(x), scores(x))


@pytest.mark.parametrize("side", [1, 2, 5])
def test_rows_of_a_grid_are_those_of_transformers(side):
    from transformers.models.beit.modeling_beit import BeitRelativePositionBias

    theirs = BeitRelativePositionBias.generate_relative_position_index((side, side)).numpy()
    np.testing.assert_array_equal(grid_rows(side**2 + 1, side), theirs)
    np.testing.assert_array_equal(grid_rows(side**2, side), theirs[1:, 1:])
    with pytest.raises(ValueError, match=f"a grid of {side} x {side} has {side**2} positions"):
        grid_rows(side**2 + 2, side)


def test_scores_of_relative_positions():
    """Each row by its equation, pair by pair, in float64."""
    q, k = (np.random.default_rng(n).normal(size=(B, T, H, K)) for n in (0, 1))
    table = np.random.default_rng(2).normal(size=(2 * T - 1, 7))
    maps = {name: np.random.default_rng(n).normal(size=(7, H, K)) for n, name in
            enumerate(("query", "key"))}  # fmt: skip
    pair = np.arange(T)[:, None] - np.arange(T)
    r = table[T - 1 - pair]
    true = np.einsum("bihk,ijd,dhk->bhij", q, r, maps["key"])
    true += np.einsum("bjhk,ijd,dhk->bhij", k, r, maps["query"])

    def project(role, z):
        return jnp.einsum("rd,dhk->rhk", z, maps[role])

    as_32 = [jnp.asarray(a, jnp.float32) for a in (q, k, table)]
    found = RELATIVE.get("disentangled").scores(*as_32, project)
    assert worst(found, true) < 1e-5 * np.abs(true).max()
    by_head = table[:, :H]
    found = RELATIVE.get("bias").scores(as_32[0], as_32[1], as_32[2][:, :H], project)
    np.testing.assert_allclose(found[0], by_head[T - 1 - pair].transpose(2, 0, 1), rtol=1e-6)
    pairs = jnp.asarray(by_head[T - 1 - pair])
    found = RELATIVE.get("grid").scores(as_32[0], as_32[1], pairs, project)
    np.testing.assert_array_equal(found[0], pairs.transpose(2, 0, 1))
