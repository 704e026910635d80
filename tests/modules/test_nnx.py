"""Encoder and classifier as NNX modules: flax's bridge gives linen's values, and they train."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import resnorm_jax as rn

pytestmark = pytest.mark.table
MASK = jnp.arange(5) < jnp.array([5, 3] * 8)[:, None]
LABELS = jnp.array([0, 1] * 8)


def _classifier(**fields):
    return rn.SequenceClassifier(
        classes=2,
        front_end=rn.FeatureEmbedding(width=8),
        encoder=rn.TransformerEncoder(depth=2, heads=2, **fields),
        max_length=5,
    )


def _input(channels):
    """Random features; rows of class 1 lie one higher."""
    return jax.random.normal(jax.random.key(0), (16, 5, channels)) + LABELS[:, None, None]


def _bridged(module, x):
    @nnx.jit
    def create():
        model = nnx.bridge.ToNNX(module, rngs=nnx.Rngs(params=0, dropout=1))
        return nnx.bridge.lazy_init(model, x, MASK)

    return create()


def _collection(model, kind):
    """The variables of one kind as linen's nested dictionary."""
    return nnx.to_pure_dict(nnx.state(model, kind))


def _train(model, objective, steps=12):
    """Losses before each of the updates; every gradient is finite, and not all are 0."""
    optimizer = nnx.Optimizer(model, optax.adam(3e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, gradients = nnx.value_and_grad(objective)(model)
        optimizer.update(model, gradients)
        return loss, jax.tree.leaves(gradients)

    losses = []
    for _ in range(steps):
        loss, gradients = step(model, optimizer)
        assert all(np.isfinite(g).all() and np.any(g != 0) for g in gradients)
        losses.append(float(loss))
    return losses


def _close(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_the_classifier_trains_with_dropout_and_ends_at_linens_values():
    x, module = _input(3), _classifier(arrangement="resi_dual", dropout=0.1)
    model = _bridged(module, x)

    def loss(model):
        logits = model(x, MASK, deterministic=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    losses = _train(model, loss)
    assert losses[-1] < 0.7 * losses[0]
    want = jax.jit(module.apply)({"params": _collection(model, nnx.Param)}, x, MASK)
    _close(nnx.jit(lambda model: model(x, MASK))(model), want)
    # Each call draws a new dropout mask from the rngs that the bridge was given.
    drop = nnx.jit(lambda model: model(x, MASK, deterministic=False))
    assert not np.array_equal(drop(model), drop(model))


def test_the_encoder_trains_and_starts_at_linens_values():
    x, module = _input(8), rn.TransformerEncoder(depth=2, heads=2)
    model = _bridged(module, x)
    key = nnx.Rngs(params=0).fork().params()
    want = jax.jit(module.init)(key, x, MASK)["params"]
    _close(_collection(model, nnx.Param), want)
    losses = _train(model, lambda model: jnp.mean((model(x, MASK) - 1) ** 2))
    assert losses[-1] < 0.7 * losses[0]


def test_running_statistics_move_in_training_where_they_are_mutable_and_only_there():
    x, module = _input(3), _classifier(norm="batch")
    model = _bridged(module, x)
    linen = {"params": _collection(model, nnx.Param)}
    linen["batch_stats"] = start = _collection(model, nnx.BatchStat)
    how = {"deterministic": False, "mutable": ["batch_stats"]}
    _, after = jax.jit(lambda v: module.apply(v, x, MASK, **how))(linen)
    losses = _train(
        model, lambda model: jnp.mean((model(x, MASK, **how) - LABELS[:, None]) ** 2), 1
    )
    moved = _collection(model, nnx.BatchStat)
    _close(moved, after["batch_stats"])
    assert not np.allclose(jax.tree.leaves(moved)[0], jax.tree.leaves(start)[0])
    assert np.isfinite(losses[0])
    nnx.jit(lambda model: model(x, MASK))(model)
    jax.tree.map(np.testing.assert_array_equal, moved, _collection(model, nnx.BatchStat))
