"""The probe against NumPy in float64, on a model whose gradient is known in closed form."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import every

import resnorm_jax as rn
from resnorm_jax.config import OptimizerConfig
from resnorm_jax.lab.certify.probe import (
    agreement,
    as_probe,
    layer_norms,
    make_probe,
    mean_cosine,
)
from resnorm_jax.training.unit_weights import normalize_weights

B, D, K = 5, 3, 4


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)

    def batch():
        weight = np.array([1, 1, 0, 1, 1.0])
        return {"x": rng.normal(size=(B, D)), "y": rng.integers(0, K, B), "weight": weight}

    return rng.normal(size=(D, K)), batch()


def softmax_loss(kernel, batch):
    logits = batch["x"] @ kernel
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    each = -log_probs[np.arange(B), batch["y"]]
    slope = np.exp(log_probs) - np.eye(K)[batch["y"]]
    weight = batch["weight"] / batch["weight"].sum()
    return each @ weight, batch["x"].T @ (slope * weight[:, None])


def sgd(kernels, gradients):
    return -gradients[-1]


def adam(kernels, gradients):
    """Adam's direction after these gradients (Kingma and Ba 2015, algorithm 1)."""
    mean, square = 0.0, 0.0
    for g in gradients:
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
    t = len(gradients)
    return -(mean / (1 - 0.9**t)) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)


def adamw(kernels, gradients):
    return adam(kernels, gradients) - 0.1 * kernels[-1]


@pytest.mark.parametrize(
    ("config", "update"),
    [
        pytest.param(
            OptimizerConfig(algorithm="sgd", momentum=0.0, clip=None), sgd, marks=pytest.mark.table
        ),
        pytest.param(OptimizerConfig(algorithm="adam", clip=None), adam, marks=pytest.mark.table),
        (OptimizerConfig(weight_decay=0.1, decay="kernel", clip=None), adamw),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_the_first_steps(case, config, update):
    kernel, batch = case

    def init(key, x, mask):
        return {"params": {"head": {"kernel": jnp.asarray(kernel, jnp.float32)}}}

    def apply(variables, x, mask):
        return x @ variables["params"]["head"]["kernel"], x

    # Neither schedule nor warm-up counts.
    config = replace(config, learning_rate=0.3, warmup=0.5, schedule="cosine")
    rates, steps = (0.5, 2.0), 3
    probe = make_probe(init, apply, config, rates, steps)
    as_jax = {name: jnp.asarray(value, jnp.float32) for name, value in batch.items()}
    as_jax["y"] = as_jax["y"].astype(jnp.int32)
    found = as_probe(probe(jax.random.split(jax.random.key(0), 2), as_jax))

    for j, rate in enumerate(rates):
        kernels, gradients = [kernel], []
        for t in range(steps + 1):
            want, gradient = softmax_loss(kernels[-1], batch)
            agreed = correlation(batch["x"] @ kernels[-1], batch["y"], batch["weight"])
            np.testing.assert_allclose(found.loss[:, j, t], [want] * 2, rtol=2e-5)
            np.testing.assert_allclose(found.agreement[:, j, t], [agreed] * 2, atol=2e-5)
            gradients.append(gradient)
            kernels.append(kernels[-1] + rate * 0.3 * update(kernels, gradients))
    assert found.loss.shape == found.agreement.shape == (2, 2, 4)
    assert found.gradient.shape == (2, 0)
    kept = batch["x"][batch["weight"] > 0]
    np.testing.assert_allclose(found.alike, [pairwise(kept)] * 2, rtol=1e-5)


def test_unit_weights_are_unit_from_the_start(case):
    kernel, batch = case

    def init(key, x, mask):
        return {"params": {"fc1": {"kernel": jnp.asarray(kernel, jnp.float32)}}}

    def apply(variables, x, mask):
        weight = variables["params"]["fc1"]["kernel"]
        return x @ weight, x

    config = OptimizerConfig(algorithm="sgd", momentum=0.0, clip=None, unit_weights=True)
    as_jax = {name: jnp.asarray(value, jnp.float32) for name, value in batch.items()}
    as_jax["y"] = as_jax["y"].astype(jnp.int32)
    found = as_probe(make_probe(init, apply, config)(jax.random.key(0)[None], as_jax))
    unit = normalize_weights({"fc1": {"kernel": jnp.asarray(kernel, jnp.float32)}})
    want, _ = softmax_loss(np.asarray(unit["fc1"]["kernel"], np.float64), batch)
    np.testing.assert_allclose(found.loss[0, :, 0], want, rtol=2e-5)
    other, _ = softmax_loss(kernel, batch)
    assert abs(other - want) > 1e-2


def correlation(logits, labels, weight):
    """Pearson's correlation of all entries, each column less its mean, each row of logits too."""
    logits, labels = logits[weight > 0], labels[weight > 0]
    z = logits - logits.mean(0)
    y = np.eye(K)[labels] - np.eye(K)[labels].mean(0)
    return np.corrcoef((z - z.mean(1, keepdims=True)).ravel(), y.ravel())[0, 1]


def test_agreement_sees_neither_bias_nor_scale():
    rng = np.random.default_rng(1)
    logits, labels, weight = rng.normal(size=(B, K)), rng.integers(0, K, B), np.ones(B)
    want = correlation(logits, labels, weight)
    moved = 1e25 * (logits + rng.normal(size=K))
    for z in (logits, moved):
        z = jnp.asarray(z, jnp.float32)
        found = agreement(z, jnp.asarray(labels), jnp.asarray(weight))
        np.testing.assert_allclose(found, want, rtol=1e-4)
    perfect = jax.nn.one_hot(labels, K)
    np.testing.assert_allclose(agreement(perfect, jnp.asarray(labels), jnp.ones(B)), 1, rtol=1e-6)
    same = jnp.broadcast_to(jnp.arange(4.0), (B, K))
    assert agreement(same, jnp.asarray(labels), jnp.ones(B)) == 0


def pairwise(x):
    """Mean cosine over pairs, pair by pair."""
    pairs = [(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    return np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])


def test_mean_cosine_of_rows_that_are_zero_is_finite():
    x = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(mean_cosine(x, jnp.ones(3)), 0.0, atol=1e-7)
    np.testing.assert_allclose(mean_cosine(x[1:2].repeat(3, 0), jnp.ones(3)), 1.0, rtol=1e-6)


@pytest.mark.parametrize("arrangement", every(["pre_ln", "mix_ln"], ["mix_ln"]))  # two stacks
def test_gradient_norms_by_layer(arrangement):
    encoder = rn.TransformerEncoder(depth=5, heads=1, arrangement=arrangement)
    variables = jax.eval_shape(encoder.init, jax.random.key(0), jnp.ones((1, 2, 4)))
    rng = np.random.default_rng(0)
    tree = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), variables["params"])
    want = [
        np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(layer)))
        for layer in (rn.layer_parameters(tree, n) for n in range(1, 6))
    ]
    found = jax.jit(layer_norms)({"encoder": tree})
    np.testing.assert_allclose(found, want, rtol=1e-5)
