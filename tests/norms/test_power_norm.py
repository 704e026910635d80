"""Power norm step by step against a float64 oracle of its forward, backward and state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import worst
from tiers import every

import resnorm_jax as rn
from resnorm_jax.norms.power import OVERWRITE

WARMUP, KEEP, KEEP_BACK, EPSILON = 3, 0.9, 0.7, 1e-5


def oracle_step(state, x, scale, bias, cotangent, mask):
    """2003.07845 as its official code does it, over valid positions; returns y, gradients, state."""
    length = np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
    u = np.where(mask, x / length, 0)
    axes = tuple(range(x.ndim - 1))
    count = mask.sum()
    number = state["count"] + 1
    square = (u * u).sum(axes) / count
    root = np.sqrt((square if number <= WARMUP else state["square"]) + EPSILON)
    z = u / root
    g = np.where(mask, cotangent, 0)
    h = np.where(mask, g * scale - (1 - KEEP_BACK) * state["nu"] * z, 0)
    du = h / np.sqrt(square + EPSILON)
    dx = np.where(mask, (du - u * (du * u).mean(-1, keepdims=True)) / length, 0)
    running = state["square"]
    if number < WARMUP:
        running = running * (number - 1) / number + square / number
    new = {
        "count": number,
        "square": KEEP * running + (1 - KEEP) * square,
        "nu": state["nu"] + (h * z).sum(axes) / count,
    }
    y = np.where(mask, z * scale + bias, 0)
    return y, {"x": dx, "scale": (g * z).sum(axes), "bias": g.sum(axes)}, new


def norm(**fields):
    return rn.PowerNorm(momentum=KEEP, backward_momentum=KEEP_BACK, warmup=WARMUP, **fields)


def step(module, variables, x, cotangent, mask):
    """One training step of the norm alone: values, gradients, new variables."""
    fixed = {"batch_stats": variables["batch_stats"]}

    def loss(learned, x):
        out, new = module.apply(
            {**learned, **fixed}, x, mask=mask, deterministic=False, mutable=["batch_stats"]
        )
        return (out * cotangent).sum(), (out, new)

    learned = {k: v for k, v in variables.items() if k != "batch_stats"}
    (grads, dx), (out, new) = jax.grad(loss, (0, 1), has_aux=True)(learned, x)
    gradients = {"x": dx, **grads.pop("params")}
    return out, gradients, {"params": variables["params"], **grads, **new}


def case(seed, shape=(4, 5, 3)):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.3, 2, shape).astype(np.float32) * rng.uniform(0.1, 3, 3).astype(np.float32)
    mask = (rng.permutation(20) < 15).reshape(4, 5)
    return x, rng.normal(size=shape).astype(np.float32), mask


def first(module):
    rng = np.random.default_rng(9)
    scale, bias = rng.normal(0.5, 1, (2, 3)).astype(np.float32)
    start = module.init(jax.random.key(0), np.ones((1, 1, 3), np.float32))
    np.testing.assert_array_equal(start["params"]["scale"], np.ones(3))
    np.testing.assert_array_equal(start["params"]["bias"], np.zeros(3))
    oracle = {"count": 0, "square": np.ones(3), "nu": np.zeros(3)}
    return {**start, "params": {"scale": scale, "bias": bias}}, oracle, scale, bias


@pytest.mark.table
@pytest.mark.parametrize("devices", every([1, 4], [4]))
def test_every_step_is_the_oracles(devices):
    """Through the warm-up and beyond; on four devices with unequal numbers of valid positions."""
    module = norm(axis_name="i")
    variables, state, scale, bias = first(module)
    run = jax.pmap(lambda *args: step(module, *args), axis_name="i", in_axes=(None, 0, 0, 0))
    for seed in range(6):
        x, cotangent, mask = case(seed)
        y, gradients, state = oracle_step(
            state, *(a.astype(float) for a in (x, scale, bias, cotangent)), mask[..., None]
        )
        parts = (np.where(mask[..., None], x, np.nan), cotangent, mask)
        parts = [a.reshape(devices, 4 // devices, *a.shape[1:]) for a in parts]
        out, found, new = run(variables, *parts)
        assert worst(np.asarray(out).reshape(x.shape), y) <= 2e-6
        assert worst(np.asarray(found["x"]).reshape(x.shape), gradients["x"]) <= 2e-5
        for key in ("scale", "bias"):  # summed over devices by the trainer
            assert worst(np.asarray(found[key]).sum(0), gradients[key]) <= 5e-6
        for leaf in jax.tree.leaves(new):  # the state: equal to the bit
            assert len({np.asarray(row).tobytes() for row in leaf}) == 1
        variables = jax.tree.map(lambda leaf: np.asarray(leaf)[0], new)
        assert worst(variables["batch_stats"]["square"], state["square"]) <= 2e-6
        assert variables["batch_stats"]["count"] == state["count"] == seed + 1
        assert worst(variables[OVERWRITE]["nu"], state["nu"]) <= 2e-5
    assert np.abs(state["nu"]).max() > 1e-2  # it matters
    out = module.apply(variables, x, mask=mask, deterministic=True)
    u = x / np.sqrt((x.astype(float) ** 2).mean(-1, keepdims=True) + EPSILON)
    expected = u / np.sqrt(state["square"] + EPSILON) * scale + bias
    assert worst(out, np.where(mask[..., None], expected, 0)) <= 2e-6


@pytest.mark.table
def test_nothing_valid_moves_nothing():
    module = norm()
    variables, *_ = first(module)
    x, cotangent, mask = case(0)
    out, gradients, new = step(module, variables, x, cotangent, np.zeros_like(mask))
    assert not np.asarray(out).any()
    assert not any(np.asarray(leaf).any() for leaf in gradients.values())
    jax.tree.map(np.testing.assert_array_equal, dict(new), dict(variables))


@pytest.mark.table
def test_zero_rows_are_finite_and_bfloat16_stays():
    module = norm()
    variables, *_ = first(module)
    zeros = jnp.zeros((2, 4, 3), jnp.bfloat16)
    out, gradients, new = step(module, variables, zeros, jnp.ones(zeros.shape), None)
    assert out.dtype == gradients["x"].dtype == jnp.bfloat16
    for leaf in jax.tree.leaves((out, gradients, new)):
        assert np.isfinite(np.asarray(leaf, float)).all()


def test_it_has_no_forward_mode():
    module = norm()
    variables, *_ = first(module)
    x = jnp.asarray(case(0)[0])

    def run(x):
        return module.apply(variables, x, deterministic=False, mutable=["batch_stats"])[0]

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(run, (x,), (x,))
