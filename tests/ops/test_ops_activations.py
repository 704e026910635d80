"""GELU against float64: values, slopes, and dtypes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnorm_jax.ops.activations import ACTIVATIONS, gelu

Z = np.concatenate([np.linspace(-12, 12, 4801), [0.0, 1e-30, -1e-30, 40, -40, 1e4, -1e4]])


def cumulative(z):
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])


def slope(z):
    return cumulative(z) + z * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def test_values_are_within_two_roundings_of_the_largest():
    z = Z.astype(np.float32)
    want = z.astype(float) * cumulative(z.astype(float))
    error = np.abs(np.asarray(gelu(jnp.asarray(z)), float) - want)
    assert (error <= 2.4e-7 * np.maximum(np.abs(z.astype(float)), 1e-3)).all()
    assert ACTIVATIONS.get("gelu").function is gelu


def test_slopes_and_what_is_beyond_them():
    z = Z.astype(np.float32)
    one = jax.vmap(jax.grad(gelu))
    want = slope(z.astype(float))
    assert np.abs(np.asarray(one(jnp.asarray(z)), float) - want).max() < 5e-7
    curved = jax.vmap(jax.grad(jax.grad(gelu)))(jnp.asarray(z))
    density = np.exp(-(z.astype(float) ** 2) / 2) / math.sqrt(2 * math.pi)
    assert np.abs(np.asarray(curved, float) - (2 - z.astype(float) ** 2) * density).max() < 1e-6


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_rounds_once(dtype):
    z = jnp.asarray(Z[:4801], dtype)
    want = (np.asarray(z, float) * cumulative(np.asarray(z, float))).astype(np.float32)
    found = gelu(z)
    assert found.dtype == dtype
    unit = float(jnp.finfo(dtype).eps)
    error = np.abs(np.asarray(found, float) - want)
    assert (error <= unit * np.abs(want) / 2 * 1.01 + 2e-6).all()
