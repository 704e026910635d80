"""Trainings side by side are those one after the other; the traced switch is the switch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import worst
from tiers import every

from resnorm_jax import article
from resnorm_jax.lab.article.networks import TracedSwitch, all_switches
from resnorm_jax.lab.article.outlook import attention_weights
from resnorm_jax.lab.article.training import best_rate, train_grid
from resnorm_jax.lab.trainer import rows_of_step

RATES = (1e-2, 1e-1)


def init(key, variant):
    return {"w": jax.random.normal(key, (3,)) * variant}


def loss(params, root, step, variant):
    target = jax.random.normal(jax.random.fold_in(root, step), (3,))
    return jnp.sum((params["w"] - target - variant) ** 2)


@pytest.mark.table
def test_a_grid_is_its_runs():
    variants = jnp.array([1.0, 2.0])
    found = train_grid(
        init, loss, 2, RATES, 6, variants=variants, every=3, first_seed=5,
        observe=lambda params, variant: params["w"] * variant,
    )  # fmt: skip
    assert found.losses.shape == (2, 2, 2, 6)
    assert found.seen.shape == (2, 2, 2, 3, 3)
    slope = jax.jit(jax.value_and_grad(loss))
    for v, variant in enumerate(variants):
        for s in range(2):
            for r, rate in enumerate(RATES):
                key, root = jax.random.split(jax.random.key(5 + s))
                params, losses, looks = init(key, variant), [], []
                adam = optax.adam(rate)
                state = adam.init(params)
                looks.append(params["w"] * variant)
                for n in range(6):
                    value, gradient = slope(params, root, n, variant)
                    updates, state = adam.update(gradient, state)
                    params = optax.apply_updates(params, updates)
                    losses.append(value)
                    if n % 3 == 2:
                        looks.append(params["w"] * variant)
                assert worst(found.losses[v, s, r], np.array(losses)) < 1e-5
                assert worst(found.seen[v, s, r], np.array(looks)) < 1e-5


def test_looks_must_fit():
    with pytest.raises(ValueError, match="does not divide"):
        train_grid(init, loss, 1, RATES, 5, every=2)


def test_an_epoch_sees_each_row_at_most_once():
    root = jax.random.key(0)
    epochs = [
        np.concatenate([rows_of_step(root, 3 * e + n, 10, 3) for n in range(3)]) for e in range(2)
    ]
    for seen in epochs:
        assert len(set(seen.tolist())) == 9
    assert epochs[0].tolist() != epochs[1].tolist()


def test_best_rate_takes_the_median_and_fears_nan():
    assert best_rate(np.array([[1.0, 0.5], [1.0, 0.6], [1.0, 9.0]])) == 1
    assert best_rate(np.array([[1.0, np.nan], [1.0, np.nan]])) == 0
    assert best_rate(np.array([[np.inf, 2.0], [1.0, 2.0]])) == 1


@pytest.mark.parametrize("n", every(range(4)))
def test_the_traced_switch_is_the_switch(n):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4)), jnp.float32)
    branch = partial(article.ReluLayer, 4)

    def out(switch, params, x):
        return article.SwitchNetwork(3, switch, branch).apply(params, x).sum()

    plain = article.SWITCHES[n]
    traced = jax.tree.map(lambda a: a[n], all_switches())
    assert isinstance(traced, TracedSwitch)
    init = jax.jit(article.SwitchNetwork(3, article.SWITCHES[3], branch).init)
    params = init(jax.random.key(0), x)
    for z in (x, jnp.full_like(x, 1e25)):  # a norm that is off must not spoil the gradient
        if plain.norm and z is not x:
            continue
        plainly = jax.jit(jax.value_and_grad(lambda p, z: out(plain, p, z), (0, 1)))
        expected = plainly(params, z)
        found = jax.jit(jax.value_and_grad(lambda s, p, z: out(s, p, z), (1, 2)))(traced, params, z)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert worst(a, b) <= 1e-5


def test_attention_weights_by_loops():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6))
    weights = {
        name: {"kernel": rng.normal(size=(6, 2, 3)), "bias": rng.normal(size=(2, 3))}
        for name in ("query", "key")
    }
    wanted = np.zeros((5, 5))
    for h in range(2):
        q, k = (x @ w["kernel"][:, h] + w["bias"][h] for w in weights.values())
        logits = np.exp(q @ k.T / np.sqrt(3))
        wanted += logits / logits.sum(1, keepdims=True) / 2
    assert worst(attention_weights(weights, x), wanted) < 1e-5
