"""Models told lengths in place of a mask: the same values, and NVIDIA's attention where it serves."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import quick_jit

from resnorm_jax import FeatureEmbedding, SequenceClassifier, TransformerEncoder
from resnorm_jax.training.step import StepOptions, create_state, predict_step, told, train_step

B, L, C = 4, 6, 3
LENGTHS = np.array([6, 2, 4, 3], np.int32)
MASK = np.arange(L) < LENGTHS[:, None]
REAL = jax.nn.dot_product_attention


def model(encoder=None, stride=1, **options):
    return SequenceClassifier(
        classes=3,
        front_end=FeatureEmbedding(width=16, kernel=stride, stride=stride),
        encoder=TransformerEncoder(**{"depth": 2, "heads": 2, "mlp_width": 8} | (encoder or {})),
        **{"max_length": 8} | options,
    )


def batch(dtype=np.float32):
    x = np.random.default_rng(0).normal(size=(B, L, C)).astype(np.float32)
    x[~MASK] = np.nan
    y, weight = np.arange(B) % 3, np.array([1, 1, 1, 0], np.float32)
    return {"x": x, "y": y, "weight": weight, "mask": MASK, "lengths": LENGTHS}


CASES = [
    {},
    {"pooling": "cls"},
    {"pooling": "last"},
    {"stride": 2},
    {"stride": 4, "pooling": "cls"},
    {"pooling": "distilled"},
    {"encoder": {"norm": "batch"}},
    {"encoder": {"attention": "chunked"}},
    {"encoder": {"arrangement": "shaped_attention"}},
]


def test_logits_by_lengths_are_those_under_a_mask():
    made, x = model({"depth": 1}, stride=4, pooling="cls"), batch()["x"]

    @quick_jit
    def logits(x):
        variables = made.init(jax.random.key(0), jnp.zeros((1, L, C)))
        return made.apply(variables, x, MASK), made.apply(variables, x, lengths=LENGTHS)

    under_a_mask, by_lengths = logits(x)
    assert np.isfinite(by_lengths).all()
    np.testing.assert_allclose(by_lengths, under_a_mask, rtol=1e-5, atol=1e-6)


@pytest.mark.table
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_by_lengths_is_one_under_a_mask(case):
    """Loss, gradients and statistics; rows that fill the batch, and NaN in padding, among them."""
    made, given = model(**case), batch()
    variables = jax.jit(made.init)(jax.random.key(0), given["x"], given["mask"])
    state = create_state(variables, optax.sgd(1.0), 0, None)

    @partial(quick_jit, static_argnums=0)
    def step(by_length):
        new, metrics = train_step(
            state, given, StepOptions(made.apply, optax.sgd(1.0), by_length=by_length)
        )
        scored = told(given, by_length)
        logs = predict_step({"params": new.params, **new.collections}, scored, made.apply)
        return new, metrics, logs

    # New parameters are as large as 10, where float32 rounds by 1e-6.
    chex.assert_trees_all_close(step(True), step(False), rtol=1e-4, atol=1e-5)


@pytest.fixture
def cudnn(monkeypatch):
    """JAX on a GPU whose cuDNN is played by XLA; returns the lengths of keys of each call."""
    calls = []

    def played(q, k, v, *, implementation, **options):
        if implementation == "cudnn":
            calls.append(options["key_value_seq_lengths"])
        return REAL(q, k, v, implementation="xla", **options)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", played)
    return calls


def test_lengths_reach_cudnn_from_the_batch_and_a_mask_never_does(cudnn):
    made, given = model({"dtype": jnp.bfloat16}, pooling="cls", stride=2), batch()
    variables = jax.eval_shape(made.init, jax.random.key(0), given["x"], given["mask"])
    assert not cudnn
    state = jax.eval_shape(lambda v: create_state(v, optax.sgd(1.0), 0, None), variables)
    step = partial(train_step, options=StepOptions(made.apply, optax.sgd(1.0)))
    jax.eval_shape(step, state, given)
    assert not cudnn
    step = partial(train_step, options=StepOptions(made.apply, optax.sgd(1.0), by_length=True))
    jax.eval_shape(step, state, given)
    assert cudnn
    del cudnn[:]
    encoder, x = made.encoder, jax.ShapeDtypeStruct((B, L, 16), jnp.bfloat16)
    params = jax.eval_shape(encoder.init, jax.random.key(0), x)
    jax.eval_shape(partial(encoder.apply, lengths=LENGTHS), params, x)
    assert cudnn
    del cudnn[:]
    holes = np.ones((L, L), bool)
    jax.eval_shape(partial(encoder.apply, lengths=LENGTHS, attention_mask=holes), params, x)
    jax.eval_shape(partial(encoder.apply, mask=MASK, lengths=LENGTHS), params, x)
    assert not cudnn


@pytest.mark.table
def test_an_encoder_takes_lengths_and_a_mask_together():
    encoder, holes = TransformerEncoder(depth=1, heads=2), np.ones((B, L), bool)
    holes[:, 1] = False
    x = jnp.asarray(np.random.default_rng(0).normal(size=(B, L, 8)), jnp.float32)

    @quick_jit
    def run(x):
        params = encoder.init(jax.random.key(0), x)
        shown = partial(encoder.apply, return_intermediates=True, attention_weights=True)
        return shown(params, x, holes, lengths=LENGTHS), shown(params, x, holes & MASK)

    (found, seen), (want, _) = run(x)
    np.testing.assert_allclose(found[holes & MASK], want[holes & MASK], rtol=1e-6, atol=1e-6)
    weights = np.moveaxis(seen["attention/weights"][0], -1, 1)  # [B, keys, H, queries]
    assert not weights[~(holes & MASK)].any()
    assert weights[holes & MASK].all()
