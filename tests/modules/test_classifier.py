"""The classifier: pooling, positions and front ends; padding is never seen."""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import assert_trees_close, quick_jit, worst
from scheme_oracles import encode
from tiers import every

from resnorm_jax import (
    FeatureEmbedding,
    PatchEmbedding,
    SequenceClassifier,
    TokenEmbedding,
    TransformerEncoder,
)
from resnorm_jax.modules.pooling import POOLING
from resnorm_jax.modules.positions import POSITIONS, sinusoids

B, L, C, D, H, F, N, K = 3, 5, 4, 6, 2, 8, 2, 3
VALID = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], bool)


def classifier(front_end=None, encoder=None, **options):
    encoder = {"depth": N, "heads": H, "mlp_width": F} | (encoder or {})
    return SequenceClassifier(
        classes=K,
        front_end=front_end or FeatureEmbedding(width=D),
        encoder=TransformerEncoder(**encoder),
        **{"max_length": 8} | options,
    )


def features(length=L, seed=0):
    return np.random.default_rng(seed).normal(size=(B, length, C)).astype(np.float32)


def random_params(model, *args):
    rng = np.random.default_rng(1)
    like = jax.eval_shape(model.init, jax.random.key(0), *args)["params"]
    return jax.tree.map(lambda p: rng.normal(0.2, 0.5, p.shape).astype(np.float32), like)


def value_and_grads(model, params, x, mask):
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(B, K)), jnp.float32)

    @quick_jit
    def run(params, x, mask):
        out, pullback = jax.vjp(lambda p, x: model.apply({"params": p}, x, mask), params, x)
        return out, *pullback(weights)

    return lambda x, mask: run(params, jnp.asarray(x), mask), run(params, jnp.asarray(x), mask)


# --- Against the oracle, and blind to padding ---


def pool(name, h, mask):
    """Pooling of the valid positions, row by row."""
    rows = [row[valid] for row, valid in zip(h, mask, strict=True)]
    pick = {
        "mean": lambda r: r.mean(0),
        "max": lambda r: r.max(0),
        "last": lambda r: r[-1],
        "statistics": lambda r: np.concatenate([r.mean(0), np.sqrt(r.var(0) + 1e-6)]),
        "cls": lambda r: r[0],
        "distilled": lambda r: r[0],
        "distilled_pair": lambda r: r[:2].ravel(),
        "patches": lambda r: r[1:].mean(0),
        "first": lambda r: r[0],
    }[name]
    return np.stack([pick(r) for r in rows])


@pytest.mark.parametrize(
    ("pooling", "positions"),
    [
        ("cls", "sinusoidal"),
        pytest.param("mean", "learned", marks=pytest.mark.table),
        pytest.param("last", "none", marks=pytest.mark.table),
        pytest.param("max", "learned", marks=pytest.mark.table),
        pytest.param("statistics", "learned", marks=pytest.mark.table),
        pytest.param("cls", "learned", marks=pytest.mark.table),
        pytest.param("distilled", "learned", marks=pytest.mark.table),
    ],
)
def test_logits_are_the_oracles_and_padding_is_not_seen(pooling, positions):
    model = classifier(pooling=pooling, positions=positions)
    x = features()
    params = random_params(model, x)
    # The oracle, in float64.
    p = oracles.tree_map(lambda a: np.asarray(a, float), params)
    h = np.where(VALID[..., None], x, 0) @ p["front_end"]["project"]["kernel"]
    h, mask = h + p["front_end"]["project"]["bias"], VALID
    tokens = {"cls": ["cls"], "distilled": ["cls", "distillation"]}.get(pooling, [])
    for name in reversed(tokens):
        h = np.concatenate([np.broadcast_to(p[name], (B, 1, D)), h], 1)
        mask = np.pad(mask, ((0, 0), (1, 0)), constant_values=True)
    length = h.shape[1]
    if positions == "learned":
        assert p["positions"]["embedding"].shape == (8 + len(tokens), D)
        h = h + p["positions"]["embedding"][:length]
    if positions == "sinusoidal":
        h = h + sinusoids(length, D)
    h = encode("pre_ln", p["encoder"], h, mask)
    expected = pool(pooling, h, mask) @ p["head"]["kernel"] + p["head"]["bias"]

    dirty = np.where(VALID[..., None], x, np.nan)
    again, (out, grads, dx) = value_and_grads(model, params, dirty, VALID)
    assert out.dtype == jnp.float32
    assert worst(out, expected) < 2e-6
    # Neither NaN nor anything else in padding counts, for logits and gradients alike.
    clean = again(np.where(VALID[..., None], x, 7), VALID)
    chex.assert_tree_all_finite((out, grads, dx))
    chex.assert_trees_all_equal((out, grads, dx), clean)
    assert not np.asarray(dx)[~VALID].any()
    assert np.abs(dx).max() > 1e-3
    # A longer batch pads more.
    pad = ((0, 0), (0, 2))
    longer = again(np.pad(dirty, (*pad, (0, 0)), constant_values=np.inf), np.pad(VALID, pad))
    assert worst(longer[0], out) < 1e-5
    assert_trees_close(longer[1], grads, 1e-5)


def test_every_pooling_and_position_of_the_tables_is_tested():
    names = {"mean", "statistics", "cls", "distilled", "first", "last", "max"}
    names |= {"distilled_pair", "patches"}
    assert set(POOLING.names()) == names
    assert set(POSITIONS.names()) == {"none", "learned", "sinusoidal", "rotary"}


@pytest.mark.parametrize("pooling", POOLING.names())
def test_pooling_by_hand(pooling):
    function = POOLING.get(pooling).function
    h = np.random.default_rng(0).normal(-3, 1, (B, L, D)).astype(np.float32)
    holes = VALID.copy()
    holes[0, 2] = False  # a hole: valid positions need not be a prefix
    dirty = np.where(holes[..., None], h, np.nan)
    found, whole = quick_jit(lambda a, b: (function(a, holes), function(b, None)))(dirty, h)
    assert worst(found, pool(pooling, h, holes)) < 1e-6
    assert worst(whole, pool(pooling, h, np.ones((B, L), bool))) < 1e-6
    # A row without any valid position is finite, and so is its gradient.
    nothing = np.zeros((B, L), bool)
    value, gradient = quick_jit(jax.value_and_grad(lambda h: function(h, nothing).sum()))(h)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    if pooling in ("mean", "patches", "max"):
        assert value == 0
        assert not np.asarray(gradient).any()


def test_mean_pooling_sums_in_float32():
    h = jnp.full((1, 1000, 1), 1.0, jnp.bfloat16)
    for mask in (None, np.ones((1, 1000), bool)):
        out = POOLING.get("mean").function(h, mask)
        assert out.dtype == jnp.bfloat16
        assert float(out[0, 0]) == 1.0


# --- Positions ---


def test_sinusoids_are_the_papers():
    table = sinusoids(7, 6)
    for position in range(7):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            assert table[position, 2 * i] == pytest.approx(np.sin(angle), abs=1e-12)
            assert table[position, 2 * i + 1] == pytest.approx(np.cos(angle), abs=1e-12)
    assert sinusoids(3, 5).shape == (3, 5)


def test_a_sequence_longer_than_learned_positions_is_refused():
    model = classifier(max_length=4)
    with pytest.raises(ValueError, match="has 5 positions, but the model learned 4"):
        model.init(jax.random.key(0), features())
    model = classifier(max_length=4, positions="sinusoidal")
    jax.eval_shape(model.init, jax.random.key(0), features())
    # The class token has a position of its own.
    model = classifier(max_length=5, pooling="cls")
    jax.eval_shape(model.init, jax.random.key(0), features())


@pytest.mark.table
def test_only_positions_tell_orders_apart():
    x = features()
    for positions, rotary in (("none", False), ("none", True), ("learned", False)):
        model = classifier(
            positions=positions,
            encoder={"rotary": rotary},
            front_end=FeatureEmbedding(width=8),
        )
        params = random_params(model, x)
        apply = quick_jit(lambda x, m=model, p=params: m.apply({"params": p}, x))
        same = worst(apply(x[:, ::-1]), apply(x)) < 1e-5
        assert same == (positions == "none" and not rotary)


# --- Front ends ---


def test_tokens():
    model = classifier(TokenEmbedding(width=D, vocabulary=11))
    tokens = np.random.default_rng(0).integers(0, 11, (B, L))
    params = random_params(model, tokens)
    apply = quick_jit(model.apply)
    out = apply({"params": params}, tokens, VALID)
    p = oracles.tree_map(lambda a: np.asarray(a, float), params)
    h = p["front_end"]["embed"]["embedding"][tokens] + p["positions"]["embedding"][:L]
    h = encode("pre_ln", p["encoder"], h, VALID)
    expected = pool("mean", h, VALID) @ p["head"]["kernel"] + p["head"]["bias"]
    assert worst(out, expected) < 2e-6
    # Ids in padding change nothing, not even ids out of range.
    other = np.where(VALID, tokens, 10**6)
    np.testing.assert_array_equal(apply({"params": params}, other, VALID), out)


def test_patches_are_cut_in_reading_order():
    front_end = PatchEmbedding(width=D, patch=2)
    images = np.random.default_rng(0).normal(size=(B, 4, 6, C)).astype(np.float32)
    params = random_params(front_end, images)
    kernel, bias = params["project"]["kernel"], params["project"]["bias"]
    patches = [images[:, i : i + 2, j : j + 2].reshape(B, -1) for i in (0, 2) for j in (0, 2, 4)]
    expected = np.stack(patches, 1).astype(float) @ kernel.reshape(-1, D) + bias
    assert worst(quick_jit(front_end.apply)({"params": params}, images), expected) < 1e-6
    model = classifier(front_end)
    assert jax.eval_shape(model.init_with_output, jax.random.key(0), images)[0].shape == (B, K)
    with pytest.raises(ValueError, match="patch=2 does not divide an image of 5 x 6"):
        front_end.init(jax.random.key(0), np.ones((1, 5, 6, C)))


# --- Dtypes, sizes, dropout, intermediates ---


@pytest.mark.parametrize("pooling", every(POOLING.names(), ["statistics"]))
def test_a_bfloat16_encoder_gives_float32_logits(pooling):
    model = classifier(
        FeatureEmbedding(width=D, dtype=jnp.bfloat16),
        {"dtype": jnp.bfloat16},
        pooling=pooling,
    )
    x = features()
    (logits, named), variables = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), x, VALID, return_intermediates=True)
    )
    assert logits.dtype == jnp.float32
    assert named["feed_forward/stream"].dtype == jnp.bfloat16
    assert named["attention/branch_out"].dtype == jnp.bfloat16
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    everything = classifier(
        FeatureEmbedding(width=D, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16),
        {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16},
        pooling=pooling,
        param_dtype=jnp.bfloat16,
    )
    logits, variables = jax.eval_shape(everything.init_with_output, jax.random.key(0), x, VALID)
    assert logits.dtype == jnp.float32
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_number_of_parameters(pooling):
    model = classifier(pooling=pooling, max_length=9)
    params = jax.eval_shape(model.init, jax.random.key(0), features())["params"]
    layer = 4 * (D * D + D) + (D * F + F) + (F * D + D) + 2 * 2 * D
    token = pooling == "cls"
    expected = (
        (C * D + D)  # projection
        + (9 + token) * D  # positions
        + token * D
        + N * layer
        + 2 * D  # final norm
        + (D * K + K)  # head
    )
    assert sum(p.size for p in jax.tree.leaves(params)) == expected


@pytest.mark.table
def test_dropout_acts_before_the_encoder_and_before_the_head():
    model = classifier(dropout=0.5)
    x = features()
    params = random_params(model, x)
    apply = partial(model.apply, return_intermediates=True)
    plain, kept = quick_jit(apply)({"params": params}, x)
    drop = quick_jit(partial(apply, deterministic=False))

    def train(key):
        return drop({"params": params}, x, rngs={"dropout": jax.random.key(key)})

    out, named = train(0)
    stream, was = np.asarray(named["stream_in"][0]), np.asarray(kept["stream_in"][0])
    dropped = stream == 0
    assert 0.2 < dropped.mean() < 0.8
    np.testing.assert_allclose(stream[~dropped], 2 * was[~dropped], rtol=1e-5)
    assert 0.1 < (np.asarray(named["pooled"]) == 0).mean() < 0.9
    assert worst(out, plain) > 1e-2
    np.testing.assert_array_equal(train(0)[0], out)
    assert worst(train(1)[0], out) > 1e-2


class Given(nn.Module):
    """A front end and an encoder that change nothing."""

    def __call__(self, x, mask=None, deterministic=True):
        return x


def test_whole_tokens_are_hidden_in_training_alone():
    model = SequenceClassifier(
        None, Given(), Given(), positions="none", pooling="max", token_dropout=0.5
    )
    x = jnp.ones((64, 1, 3))
    hidden = np.asarray(
        model.apply({}, x, deterministic=False, rngs={"dropout": jax.random.key(0)})
    )
    assert set(np.unique(hidden)) == {0, 2}
    assert (hidden == hidden[:, :1]).all()  # of a token all features or none
    assert 0.2 < hidden.mean() / 2 < 0.8
    np.testing.assert_array_equal(model.apply({}, x), x[:, 0])


def test_intermediates_name_the_pooled_vector():
    model = classifier()
    x = features()
    params = random_params(model, x)
    run = quick_jit(partial(model.apply, return_intermediates=True))
    logits, named = run({"params": params}, x, VALID)
    head = params["head"]
    expected = np.asarray(named["pooled"], float) @ head["kernel"] + head["bias"]
    assert worst(logits, expected) < 1e-6
    assert named["stream_in"].shape == (N, B, L, D)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ValueError, match="pooling: unknown name 'men'; did you mean 'mean'"):
        classifier(pooling="men").init(jax.random.key(0), features())
    with pytest.raises(
        ValueError, match="positions: unknown name 'learnd'; did you mean 'learned'"
    ):
        classifier(positions="learnd").init(jax.random.key(0), features())


@pytest.mark.parametrize("kernel", every([2, 3, 5]))
def test_a_convolution_of_features_by_hand_and_padding_is_not_seen(kernel):
    front_end = FeatureEmbedding(width=D, kernel=kernel)
    rng = np.random.default_rng(kernel)
    x = rng.normal(size=(2, 7, 3)).astype(np.float32)
    params = random_params(front_end, x)
    before = (kernel - 1) // 2
    padded = np.pad(x, ((0, 0), (before, kernel - 1 - before), (0, 0)))
    weights, bias = (np.asarray(params["project"][k], float) for k in ("kernel", "bias"))
    expected = bias + sum(padded[:, k : k + 7] @ weights[k] for k in range(kernel))
    assert worst(quick_jit(front_end.apply)({"params": params}, x), expected) < 1e-6
    model = classifier(FeatureEmbedding(width=D, kernel=kernel))
    variables = {"params": random_params(model, x)}
    apply = quick_jit(model.apply)
    logits = apply(variables, x, np.ones((2, 7), bool))
    longer = np.pad(x, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
    mask = np.arange(8) < np.array([[7], [7]])
    np.testing.assert_allclose(apply(variables, longer, mask), logits, atol=1e-5)
