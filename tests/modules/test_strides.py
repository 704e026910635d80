"""Fewer tokens than positions: a strided embedding of features, from the array to the logits."""

from typing import Any

import chex
import flax.linen as nn
import jax
import numpy as np
import oracles
import pytest
from oracles import assert_trees_close, quick_jit, worst
from scheme_oracles import encode
from tiers import every

from resnorm_jax import FeatureEmbedding, SequenceClassifier, TransformerEncoder

B, C, D, K = 3, 2, 6, 4
GEOMETRIES = {  # length, kernel, stride
    "kernel = stride": (7, 3, 3),
    "an even length": (8, 4, 2),
    "kernel > stride": (9, 5, 2),
    "one position": (1, 4, 3),
    "one token": (3, 5, 4),
    "kernel > length": (4, 7, 2),
}


def random_params(model, *args):
    rng = np.random.default_rng(1)
    like = jax.eval_shape(model.init, jax.random.key(0), *args)["params"]
    return jax.tree.map(lambda p: rng.normal(0.2, 0.5, p.shape).astype(np.float32), like)


def rows(length, seed=0):
    return np.random.default_rng(seed).normal(size=(B, length, C)).astype(np.float32)


def classifier(kernel=4, stride=3, **options):
    return SequenceClassifier(
        classes=K,
        front_end=FeatureEmbedding(D, kernel, stride=stride),
        encoder=TransformerEncoder(depth=1, heads=2, mlp_width=8),
        **{"max_length": 4} | options,
    )


# --- The embedding ---


def embedded(x, weights, bias, stride):
    """Token by token and term by term, in float64."""
    kernel, length = len(weights), x.shape[1]
    tokens = np.zeros((len(x), -(-length // stride), weights.shape[-1])) + bias
    for j in range(tokens.shape[1]):
        for k in range(kernel):
            if j * stride + k < length:
                tokens[:, j] += x[:, j * stride + k] @ weights[k]
    return tokens


@pytest.mark.parametrize("case", every(GEOMETRIES, ["kernel = stride", "kernel > stride"]))
def test_a_token_sees_the_positions_from_its_own_on(case):
    length, kernel, stride = GEOMETRIES[case]
    front_end, x = FeatureEmbedding(D, kernel, stride=stride), rows(length)
    params = random_params(front_end, x)
    assert set(params) == {"project"}
    assert params["project"]["kernel"].shape == (kernel, C, D)
    weights, bias = (np.asarray(params["project"][k], float) for k in ("kernel", "bias"))
    found = quick_jit(front_end.apply)({"params": params}, x)
    expected = embedded(x.astype(float), weights, bias, stride)
    assert found.shape == expected.shape
    assert worst(found, expected) < 1e-6


@pytest.mark.parametrize("case", GEOMETRIES)
def test_tokens_are_as_many_as_strides_begin(case):
    length, kernel, stride = GEOMETRIES[case]
    front_end = FeatureEmbedding(D, kernel, stride=stride)
    found = jax.eval_shape(front_end.init_with_output, jax.random.key(0), rows(length))[0]
    assert found.shape == (B, -(-length // stride), D)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_stride_of_one_is_the_embedding_as_it_was(kernel):
    x = rows(7)
    plain, strided = (FeatureEmbedding(D, kernel, **s) for s in ({}, {"stride": 1}))
    traced = [
        str(jax.make_jaxpr(f.init_with_output)(jax.random.key(0), x)) for f in (plain, strided)
    ]
    assert traced[0] == traced[1]
    shapes = jax.eval_shape(strided.init, jax.random.key(0), x)["params"]["project"]
    assert shapes["kernel"].shape == ((C, D) if kernel == 1 else (kernel, C, D))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 4)])
def test_positions_that_no_token_sees_are_refused(kernel, stride):
    front_end = FeatureEmbedding(D, kernel, stride=stride)
    with pytest.raises(ValueError, match=f"kernel={kernel} is under stride={stride}: positions"):
        front_end.init(jax.random.key(0), rows(7))


# --- The mask, and padding ---


LENGTHS = np.array([10, 4, 3])
TOKENS = np.array([4, 2, 1])  # of stride 3
MASK = np.arange(10) < LENGTHS[:, None]
CASES = {
    "one a position": (MASK, np.arange(4) < TOKENS[:, None]),
    "one a row": (
        np.array([[True], [False], [True]]),
        np.array([[True] * 4, [False] * 4, [True] * 4]),
    ),
    "none": (None, None),
    "holes": (
        MASK & (np.arange(10) != 3),
        np.array([[1, 0, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0]], bool),
    ),
}


class Watched(nn.Module):
    """An encoder that does nothing but note its mask."""

    masks: Any

    def __call__(self, x, mask, *, deterministic):
        self.masks(mask)
        return x


@pytest.mark.parametrize("case", CASES)
def test_a_token_is_valid_where_its_first_position_is(case):
    given, expected = CASES[case]
    seen = []
    model = SequenceClassifier(
        classes=K, front_end=FeatureEmbedding(D, 4, stride=3), encoder=Watched(seen.append)
    )
    model.init(jax.random.key(0), rows(10), given)
    if expected is None:
        assert seen == [None]
    else:
        np.testing.assert_array_equal(seen[0], expected)


@pytest.mark.parametrize("kernel", every([3, 4]))
def test_logits_are_the_oracles_and_padding_is_not_seen(kernel):
    model, x = classifier(kernel, max_length=6), rows(10)
    params = random_params(model, x)
    p = oracles.tree_map(lambda a: np.asarray(a, float), params)
    project, tokens = p["front_end"]["project"], np.arange(4) < TOKENS[:, None]
    clean = np.where(MASK[..., None], x, 0).astype(float)
    h = embedded(clean, project["kernel"], project["bias"], 3)
    h = encode("pre_ln", p["encoder"], h + p["positions"]["embedding"][:4], tokens)
    pooled = np.stack([row[valid].mean(0) for row, valid in zip(h, tokens, strict=True)])
    expected = pooled @ p["head"]["kernel"] + p["head"]["bias"]

    @quick_jit
    def run(params, x, mask):
        out, pullback = jax.vjp(lambda p, x: model.apply({"params": p}, x, mask), params, x)
        return out, *pullback(np.arange(1.0, B * K + 1, dtype=np.float32).reshape(B, K))

    out, grads, dx = run(params, np.where(MASK[..., None], x, np.nan), MASK)
    assert worst(out, expected) < 2e-6
    again = run(params, np.where(MASK[..., None], x, 7), MASK)
    chex.assert_tree_all_finite((out, grads, dx))
    chex.assert_trees_all_equal((out, grads, dx), again)
    assert not np.asarray(dx)[~MASK].any()
    assert (np.abs(dx).sum(-1) > 0)[MASK].all()  # and no position is skipped
    # A longer batch pads more, by whole tokens and parts of one.
    pad = ((0, 0), (0, 4))
    longer = np.pad(x, (*pad, (0, 0)), constant_values=np.inf)
    more, more_grads, _ = run(params, longer, np.pad(MASK, pad))
    assert worst(more, out) < 1e-5
    assert_trees_close(more_grads, grads, 1e-5)


def test_learned_positions_are_of_tokens():
    with pytest.raises(ValueError, match="has 5 positions, but the model learned 4"):
        jax.eval_shape(classifier().init, jax.random.key(0), rows(13))
    params = jax.eval_shape(classifier().init, jax.random.key(0), rows(12))["params"]
    assert params["positions"]["embedding"].shape == (4, D)
