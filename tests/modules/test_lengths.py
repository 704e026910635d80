"""Models told lengths in place of a mask: the same values, and NVIDIA's attention where it serves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import quick_jit
from tiers import every

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
    {"encoder": {"norm": "batch"}},
    {"encoder": {"attention": "chunked"}},
    {"encoder": {"arrangement": "shaped_attention"}},
]


@pytest.mark.parametrize("case", every(CASES, [CASES[4]]))
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

    for a, b in zip(*(jax.tree.leaves(step(by)) for by in (True, False)), strict=True):
        if jnp.issubdtype(a.dtype, jnp.inexact):
            # Absolute too: a bias of keys has no gradient, but for rounding.
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(a, b)


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
    encoder, x = made.encoder, jnp.ones((B, L, 16), jnp.bfloat16)
    params = encoder.init(jax.random.key(0), x)
    encoder.apply(params, x, lengths=jnp.asarray(LENGTHS))
    assert cudnn
    del cudnn[:]
    holes = np.ones((L, L), bool)
    encoder.apply(params, x, lengths=jnp.asarray(LENGTHS), attention_mask=holes)
    encoder.apply(params, x, MASK, lengths=jnp.asarray(LENGTHS))
    assert not cudnn


def test_an_encoder_takes_lengths_and_a_mask_together():
    encoder, x = TransformerEncoder(depth=1, heads=2), jnp.ones((B, L, 8))
    params, holes = encoder.init(jax.random.key(0), x), np.ones((B, L), bool)
    holes[:, 1] = False
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    found = encoder.apply(params, x, holes, lengths=jnp.asarray(LENGTHS))
    want = encoder.apply(params, x, holes & MASK)
    np.testing.assert_allclose(found[holes & MASK], want[holes & MASK], rtol=1e-6, atol=1e-6)
    found = encoder.apply(
        params, x, lengths=jnp.asarray(LENGTHS), return_intermediates=True, attention_weights=True
    )[1]["attention/weights"]
    assert not np.asarray(found)[..., ~MASK.all(0)][0, 1].any()
