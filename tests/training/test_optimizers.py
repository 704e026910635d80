"""Schedules in closed form; decay by name; optimizers by their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiers import every

from resnorm_jax.config import OptimizerConfig
from resnorm_jax.errors import UserError
from resnorm_jax.training.losses import classification_sums
from resnorm_jax.training.optimizers import ALGORITHMS, make_optimizer, make_schedule


def rates(steps=100, **fields):
    schedule = make_schedule(OptimizerConfig(learning_rate=0.5, **fields), steps)
    return np.array([float(schedule(t)) for t in range(steps)])


def test_schedules_in_closed_form():
    t = np.arange(100)
    rise = 0.5 * (t + 1) / 10
    after = (t - 10) / 90
    cosine = np.where(t < 10, rise, 0.5 * 0.5 * (1 + np.cos(np.pi * after)))
    np.testing.assert_allclose(rates(schedule="cosine", warmup=0.1), cosine, rtol=1e-5, atol=1e-7)
    linear = np.where(t < 10, rise, 0.5 * (1 - after))
    np.testing.assert_allclose(rates(schedule="linear", warmup=0.1), linear, rtol=1e-5)
    constant = np.where(t < 10, rise, 0.5)
    np.testing.assert_allclose(rates(schedule="constant", warmup=0.1), constant, rtol=1e-6)
    rsqrt = 0.5 * np.minimum((t + 1) / 10, np.sqrt(10 / (t + 1)))
    np.testing.assert_allclose(rates(schedule="rsqrt", warmup=0.1), rsqrt, rtol=1e-6)
    assert rates(schedule="cosine")[0] == 0.5


@pytest.mark.parametrize("algorithm", every(["adamw", "lion", "sgd"], ["adamw"]))
def test_decay_shrinks_kernels_and_nothing_else_without_a_gradient(algorithm):
    config = OptimizerConfig(algorithm=algorithm, learning_rate=0.1, schedule="constant",
                             weight_decay=0.5)  # fmt: skip
    optimizer, _ = make_optimizer(config, 10)
    params = {"layers": {"kernel": jnp.full((2, 3, 3), 2.0), "scale": jnp.full((2, 3), 2.0)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    new = optax.apply_updates(params, updates)
    np.testing.assert_allclose(new["layers"]["kernel"], 2.0 * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(new["layers"]["scale"], params["layers"]["scale"])


@pytest.mark.table
def test_every_algorithm_goes_downhill():
    for name in ALGORITHMS:
        config = OptimizerConfig(algorithm=name, learning_rate=0.05, schedule="constant")
        optimizer, _ = make_optimizer(config, 100)
        params = {"kernel": jnp.array([3.0, -2.0])}
        state = optimizer.init(params)
        for _ in range(100):
            updates, state = optimizer.update(params, state, params)  # gradient of |x|^2 / 2
            params = optax.apply_updates(params, updates)
        assert float(jnp.abs(params["kernel"]).max()) < 1.0, name


def test_adamw_first_step_by_hand():
    config = OptimizerConfig(learning_rate=0.1, schedule="constant", clip=1.0, weight_decay=0.0)
    optimizer, _ = make_optimizer(config, 10)
    params = {"kernel": jnp.array([1.0, 1.0])}
    updates, _ = optimizer.update(
        {"kernel": jnp.array([30.0, -40.0])}, optimizer.init(params), params
    )
    np.testing.assert_allclose(updates["kernel"], [-0.1, 0.1], rtol=1e-5)


def test_an_option_that_is_not_read_is_an_error():
    with pytest.raises(UserError, match=r"optimizer.momentum: adamw does not read it; it reads b1"):
        make_optimizer(OptimizerConfig(momentum=0.9), 10)
    with pytest.raises(UserError, match=r"did you mean 'adamw'"):
        make_optimizer(OptimizerConfig(algorithm="adamww"), 10)
    with pytest.raises(UserError, match=r"did you mean 'cosine'"):
        make_schedule(OptimizerConfig(schedule="cosin"), 10)


def test_loss_sums_against_numpy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 4))
    labels, weight = np.array([0, 3, 1, 1, 2]), np.array([1, 0, 1, 1, 0.0])
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    target = 0.9 * np.eye(4)[labels] + 0.1 / 4
    found = classification_sums(
        jnp.asarray(logits, jnp.float32), jnp.asarray(labels), jnp.asarray(weight), 0.1
    )
    np.testing.assert_allclose(found["loss"], -(target * log_probs).sum(-1) @ weight, rtol=1e-5)
    assert found["count"] == 3
    assert found["correct"] == ((logits.argmax(-1) == labels) * weight).sum()
