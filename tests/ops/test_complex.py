"""Complex numbers: four norms take them, by ``mean |x - mean|^2``; all others refuse them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit, worst

import resnorm_jax as rn

RNG = np.random.default_rng(0)
X = (RNG.normal(3, 1, (3, 4, 8)) + 1j * RNG.normal(-2, 2, (3, 4, 8))).astype(np.complex64)
SCALE, BIAS = (RNG.normal(1, 0.2, 8).astype(np.float32) for _ in range(2))
MASK = RNG.random((3, 4, 1)) < 0.7


def oracle(x, axes, epsilon, where, subtract_mean=True):
    x = x.astype(np.complex128)
    where = np.broadcast_to(where, x.shape)
    count = np.maximum(where.sum(axes, keepdims=True), 1)
    x = np.where(where, x, 0)
    if subtract_mean:
        x = np.where(where, x - x.sum(axes, keepdims=True) / count, 0)
    variance = (np.abs(x) ** 2).sum(axes, keepdims=True) / count
    return x / np.sqrt(variance + epsilon)


def group_oracle(x, axes, epsilon, where):
    shape = (*x.shape[:-1], 2, x.shape[-1] // 2)
    where = np.broadcast_to(where, x.shape).reshape(shape)
    return oracle(x.reshape(shape), axes, epsilon, where).reshape(x.shape)


CASES = {
    "LayerNorm": (rn.LayerNorm(), lambda m: oracle(X, (-1,), 1e-6, m)),
    "RMSNorm": (rn.RMSNorm(), lambda m: oracle(X, (-1,), 1e-6, m, False)),
    "GroupNorm": (rn.GroupNorm(2), lambda m: group_oracle(X, (1, 3), 1e-6, m)),
    "BatchNorm": (
        rn.BatchNorm(use_running_average=False),
        lambda m: oracle(X, (0, 1), 1e-5, m),
    ),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_four_norms_against_numpy_in_twice_the_digits(name, masked):
    module, expected = CASES[name]
    mask = MASK if masked else None
    x = np.where(MASK, X, np.nan + 1j) if masked else X

    @quick_jit
    def run(x):
        variables = module.init(jax.random.key(0), x, mask=mask)
        return module.apply(variables, x, mask=mask, mutable=["batch_stats"])[0]

    y = run(x)
    chex.assert_type(y, jnp.complex64)
    want = expected(MASK if masked else True)
    assert worst(np.asarray(y).real, want.real) < 1e-6
    assert worst(np.asarray(y).imag, want.imag) < 1e-6


def test_scale_bias_and_the_gradient():
    """The gradient of a real function, by differences of the oracle in both parts."""
    weights = RNG.normal(size=(2, *X.shape))

    def loss(parts):
        y = rn.layer_norm(jax.lax.complex(parts[0], parts[1]), SCALE, BIAS)
        return (y.real * weights[0] + y.imag * weights[1]).sum()

    with jax.enable_x64(True):
        parts = jnp.asarray([X.real, X.imag], jnp.float64)
        chex.assert_numerical_grads(loss, (parts,), order=1, atol=1e-5 / parts.size, rtol=1e-4)


@pytest.mark.table
def test_running_statistics_of_batch_norm():
    norm = rn.BatchNorm(use_running_average=False, momentum=0.9)
    variables = norm.init(jax.random.key(0), X)
    _, moved = norm.apply(variables, X, mutable=["batch_stats"])
    wide = X.astype(np.complex128)
    np.testing.assert_allclose(
        moved["batch_stats"]["mean"], 0.1 * wide.mean((0, 1)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(moved["batch_stats"]["var"], 0.9 + 0.1 * wide.var((0, 1)), rtol=1e-5)
    chex.assert_trees_all_equal_dtypes(variables["batch_stats"], moved["batch_stats"])
    frozen = norm.clone(use_running_average=True).apply({**variables, **moved}, X)
    mean, variance = (np.asarray(moved["batch_stats"][k]) for k in ("mean", "var"))
    np.testing.assert_allclose(frozen, (X - mean) / np.sqrt(variance + 1e-5), rtol=1e-5)


def test_a_cast_that_would_lose_the_imaginary_part_is_refused():
    with pytest.raises(TypeError, match=r"x is complex64 and dtype float32.*imaginary part"):
        rn.layer_norm(X, dtype=jnp.float32)
    with pytest.raises(TypeError, match="scale is complex64 and x float32"):
        rn.rms_norm(X.real, X[0, 0])
    with pytest.raises(TypeError, match="branch is complex64 and x float32"):
        rn.residual(X.real, X)
