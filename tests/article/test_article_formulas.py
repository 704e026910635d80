"""The article's formulas, its worked example and its flow chart, against exact arithmetic."""

import itertools
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import quick_jit, worst
from tiers import every

import resnorm_jax as rn
from resnorm_jax import article


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def given(width=5):
    x, w, b = normal(3, width), normal(width, width, seed=1), normal(width, seed=2)
    return x, w, b, 1 + normal(width, seed=3), normal(width, seed=4)


# --- A1 to A8 ---


def oracle_a2(x, w, b):
    return x + np.maximum(x @ w + b, 0)


def oracle_a5(x, w, b, gamma, beta):
    f = np.maximum(oracles.layer_norm(x) @ w + b, 0)
    return x + np.maximum(oracles.layer_norm(f, gamma, beta), 0)


@pytest.mark.parametrize(
    ("ours", "oracle", "count"),
    [(article.plain_block, oracle_a2, 3), (article.combined_block, oracle_a5, 5)],
)
def test_blocks(ours, oracle, count):
    arguments = given()[:count]
    singles = [np.asarray(a, np.float32) for a in arguments]
    assert worst(quick_jit(ours)(*singles), oracle(*map(np.float64, singles))) <= 1e-6


def test_epsilon_is_that_of_both_norms():
    x, *rest = given()
    small = 1e-3 * x
    ours = article.combined_block(*map(jnp.float32, (small, *rest)), epsilon=1e-2)
    w, b, gamma, beta = rest
    f = np.maximum(oracles.layer_norm(small, epsilon=1e-2) @ w + b, 0)
    assert (
        worst(ours, small + np.maximum(oracles.layer_norm(f, gamma, beta, epsilon=1e-2), 0)) < 1e-5
    )


def test_norm_before_and_after():
    x, w, b, scale, bias = given()
    branch = lambda h: jnp.tanh(h @ w + b)  # noqa: E731
    before, after = (
        quick_jit(lambda x, f=f: f(x, branch, scale, bias))(jnp.float32(x))
        for f in (article.pre_norm, article.post_norm)
    )
    assert worst(before, x + np.tanh(oracles.layer_norm(x, scale, bias) @ w + b)) <= 1e-6
    assert worst(after, oracles.layer_norm(x + np.tanh(x @ w + b), scale, bias)) <= 1e-6


@pytest.mark.parametrize("width", every([2, 5, 64, 512], [5]))
def test_a4_is_a3_times_a_constant(width):
    """Without epsilon the ratio is ``sqrt((N - 1) / N)`` at every element: 0.894 for five features."""
    x = jnp.float32(normal(4, width))
    ratio = rn.std_layer_norm(x, epsilon=0.0) / rn.layer_norm(x, epsilon=0.0)
    np.testing.assert_allclose(ratio, np.sqrt((width - 1) / width), rtol=2e-5)


def test_a4_adds_epsilon_outside_the_root():
    """Where the deviation is near epsilon the two differ by hundreds: 1e-6 against its root, 1e-3."""
    x = jnp.array([-1e-6, 0.0, 1e-6])
    outside, inside = (f(x)[2] for f in (rn.std_layer_norm, rn.layer_norm))
    assert outside == pytest.approx(0.5, rel=1e-4)
    assert inside == pytest.approx(1e-3, rel=1e-3)


def test_a8_is_a_misprint_and_not_built():
    """As printed, ``normalised * (W x + b)`` is not layer norm: scaling x scales it."""
    x, w, b, *_ = given()
    printed = lambda x: oracles.layer_norm(x) * (x @ w + b)  # noqa: E731
    norm = lambda x: oracles.layer_norm(x, 2.0, 1.0)  # noqa: E731
    assert worst(norm(10 * x), norm(x)) <= 1e-5
    assert worst(printed(10 * x), printed(x)) > 1
    assert "misprint" in article.__doc__


# --- The worked example ---

X = [Fraction(n) for n in (1, 2, 3, 4, 5)]


def exact():
    """From fractions: the only rounding is that of the root of 2, or of 5/2."""
    mean = sum(X) / 5
    centred = [x - mean for x in X]
    variance = sum(c * c for c in centred) / 5
    unbiased = sum(c * c for c in centred) / 4
    normalised = [float(c) / float(variance) ** 0.5 for c in centred]
    return {
        "mean": float(mean),
        "variance": float(variance),
        "divisor squared": float(variance),
        "centred": [float(c) for c in centred],
        "normalised (A3)": normalised,
        "normalised (A4, unbiased)": [float(c) / float(unbiased) ** 0.5 for c in centred],
        "H = X + ReLU(normalised)": [
            float(x) + max(n, 0) for x, n in zip(X, normalised, strict=True)
        ],
    }


def test_the_worked_example_is_right():
    rows = {row.name: row for row in article.worked_example()}
    wanted = exact()
    assert set(rows) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(rows[name].right, value, rtol=2e-7, atol=1e-7, err_msg=name)
    # The article's own digits where it is right, and the specification's where it is not.
    np.testing.assert_allclose(
        rows["normalised (A3)"].right, [-1.41421, -0.70711, 0, 0.70711, 1.41421], atol=5e-6
    )
    np.testing.assert_allclose(
        rows["H = X + ReLU(normalised)"].right, [1, 2, 3, 4.70711, 6.41421], atol=5e-6
    )


def test_the_worked_example_tells_the_articles_mistakes():
    wrong = {row.name for row in article.worked_example() if row.agrees is False}
    assert wrong == {"divisor squared", "centred", "H = X + ReLU(normalised)"}
    assert {r.name for r in article.worked_example() if r.agrees} == {"mean", "variance"}


# --- L7: the flow chart ---


def test_four_networks_that_differ_in_nothing_else():
    pairs = {(switch.skip, switch.norm) for switch in article.SWITCHES}
    assert pairs == set(itertools.product([False, True], repeat=2))
    params = [
        quick_jit(article.SwitchNetwork(3, s, partial(article.ReluLayer, 4)).init)(
            jax.random.key(0), jnp.ones((2, 4))
        )
        for s in article.SWITCHES
    ]
    with_norm = [p for p, s in zip(params, article.SWITCHES, strict=True) if s.norm]
    jax.tree.map(np.testing.assert_array_equal, *with_norm)
    branches = [p["params"]["blocks"]["branch"] for p in params]
    for other in branches[1:]:
        jax.tree.map(np.testing.assert_array_equal, branches[0], other)


@pytest.mark.parametrize(
    "switch", every(article.SWITCHES, article.SWITCHES[-1:], lambda switch: switch.label)
)
def test_a_network_layer_by_layer(switch):
    net = article.SwitchNetwork(4, switch, partial(article.ReluLayer, 6))
    x = normal(3, 6)
    params = quick_jit(net.init)(jax.random.key(0), jnp.float32(x))
    rng = np.random.default_rng(5)
    params = jax.tree.map(lambda a: np.float32(a + 0.3 * rng.normal(size=a.shape)), params)
    blocks = params["params"]["blocks"]
    trace = quick_jit(partial(net.apply, method="trace"))
    out, (inputs, read) = trace(params, jnp.float32(x))
    for n in range(4):
        assert worst(inputs[n], x) <= 1e-5
        h = x
        if switch.norm:
            h = oracles.layer_norm(x, blocks["norm"]["scale"][n], blocks["norm"]["bias"][n])
        assert worst(read[n], h) <= 1e-5
        linear = {k: np.float64(v[n]) for k, v in blocks["branch"]["linear"].items()}
        y = np.maximum(h @ linear["kernel"] + linear["bias"], 0)
        x = x + y if switch.skip else y
    assert worst(out, x) <= 1e-5
    assert worst(quick_jit(net.apply)(params, jnp.float32(normal(3, 6))), x) <= 1e-5


@pytest.mark.table
def test_a_probe_reads_the_streams_gradient():
    """The gradient of what is added to block n's input is the chain rule's, by finite difference."""
    net = article.SwitchNetwork(3, article.SWITCHES[3], partial(article.ReluLayer, 4))
    with oracles.x64():
        x = jnp.asarray(normal(2, 4))
        params = quick_jit(net.init)(jax.random.key(0), x)

        def square(probe):
            return jnp.sum(net.apply(params, x, probe, method="trace")[0] ** 2)

        loss = quick_jit(square)
        zero = jnp.zeros((3, 2, 4))
        gradient = quick_jit(jax.grad(square))(zero)
        step = zero.at[1, 0, 2].set(1e-6)
        slope = (loss(step) - loss(-step)) / 2e-6
        assert gradient[1, 0, 2] == pytest.approx(float(slope), rel=1e-6)
