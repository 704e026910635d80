"""Ways to add: values, what is refused, and stochastic depth's distribution."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnorm_jax import drop_path, residual
from resnorm_jax.schemes import STREAMS
from resnorm_jax.streams import Site


def pair(dtype=np.float32):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, 3, 4)).astype(dtype) for _ in range(2)]


def test_the_plain_sum():
    x, y = pair()
    np.testing.assert_array_equal(residual(jnp.asarray(x), jnp.asarray(y)), x + y)


@pytest.mark.parametrize("skip", [1.0, 0.0, 2.5, -1.0])
@pytest.mark.parametrize("branch", [1.0, 0.0, 0.25])
def test_scales(skip, branch):
    x, y = pair()
    out = residual(jnp.asarray(x), jnp.asarray(y), skip_scale=skip, branch_scale=branch)
    expected = skip * x.astype(float) + branch * y.astype(float)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)


def test_array_scales_and_their_gradients():
    x, y = map(jnp.asarray, pair())
    a, b = jnp.arange(1.0, 5.0), jnp.float32(0.5)
    weights = jnp.cos(jnp.arange(24.0)).reshape(x.shape)

    @jax.jit
    def run(x, y, a, b):
        out, pullback = jax.vjp(
            lambda x, y, a, b: residual(x, y, skip_scale=a, branch_scale=b), x, y, a, b
        )
        return out, pullback(weights)

    out, grads = run(x, y, a, b)
    np.testing.assert_allclose(out, x * a + y * b, rtol=1e-6)
    expected = weights * a, weights * b, (weights * x).sum((0, 1)), (weights * y).sum()
    for found, want in zip(grads, expected, strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_a_scale_of_one_is_not_computed():
    x, y = map(jnp.asarray, pair())
    plain = [str(e.primitive) for e in jax.make_jaxpr(residual)(x, y).eqns]
    assert plain == ["add"]
    scaled = jax.make_jaxpr(lambda x, y: residual(x, y, skip_scale=2.0))(x, y)
    assert "mul" in [str(e.primitive) for e in scaled.eqns]


def test_the_result_has_the_dtype_of_the_stream():
    x, y = map(jnp.asarray, pair())
    for stream, branch in ((jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32)):
        out = residual(x.astype(stream), y.astype(branch), skip_scale=3.0, branch_scale=0.5)
        assert out.dtype == stream


@pytest.mark.parametrize("shape", [(2, 3, 1), (3, 4), (1, 3, 4), (2, 4, 3)])
def test_other_shapes_are_refused_and_named(shape):
    with pytest.raises(ValueError, match=rf"branch.*\({', '.join(map(str, shape))}\).*\(2, 3, 4\)"):
        residual(jnp.ones((2, 3, 4)), jnp.ones(shape))


# --- Stochastic depth ---


def test_drop_path_keeps_the_expectation_and_the_rate():
    branch = jnp.ones((20_000, 1))
    out = np.asarray(drop_path(branch, 0.3, jax.random.key(0)))
    assert set(np.unique(out).tolist()) == {0.0, float(np.float32(1) / np.float32(0.7))}
    # Standard deviations: of the kept share sqrt(.3 * .7 / 20000) = 0.0032; five of them.
    assert abs((out == 0).mean() - 0.3) < 0.017
    assert abs(out.mean() - 1) < 0.024


def test_drop_path_drops_whole_samples():
    branch = jnp.asarray(np.random.default_rng(0).normal(size=(64, 3, 4)), jnp.float32)
    out = np.asarray(drop_path(branch, 0.5, jax.random.key(1)))
    dropped = np.array([not row.any() for row in out])
    assert 10 < dropped.sum() < 54
    np.testing.assert_array_equal(out[~dropped], 2 * np.asarray(branch)[~dropped])


def test_drop_path_gradient_flows_through_kept_samples_only():
    key, branch = jax.random.key(2), jnp.ones((32, 2))
    out, gradient = jax.value_and_grad(lambda b: drop_path(b, 0.5, key).sum(), allow_int=False)(
        branch
    )
    kept = np.asarray(drop_path(branch, 0.5, key))
    assert 0 < kept.sum() < 128
    np.testing.assert_array_equal(gradient, kept)
    assert out == kept.sum()


def test_drop_path_of_a_dropped_nan_is_zero():
    out = np.asarray(drop_path(jnp.full((64, 2), jnp.nan), 0.5, jax.random.key(0)))
    assert (~np.isnan(out)).any()
    assert not out[~np.isnan(out)].any()


def test_drop_path_with_a_traced_rate():
    branch, key = jnp.ones((64, 2), jnp.bfloat16), jax.random.key(0)
    run = jax.jit(lambda rate: drop_path(branch, rate, key))
    half = run(jnp.float32(0.5))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, drop_path(branch, 0.5, key))
    np.testing.assert_array_equal(run(jnp.float32(0)), branch)


def test_drop_path_draws_anew_for_another_key():
    branch = jnp.ones((64, 1))
    a, b = (drop_path(branch, 0.5, jax.random.key(k)) for k in (0, 1))
    assert (a != b).any()


def test_drop_path_without_a_rate_needs_no_key():
    branch = jnp.ones((2, 3))
    for rate in (0, 0.0):
        assert drop_path(branch, rate, None) is branch


@pytest.mark.parametrize("rate", [-0.1, 1, 1.0, 2])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\)"):
        drop_path(jnp.ones((2, 3)), rate, jax.random.key(0))


def test_a_missing_key_is_refused():
    for rate in (0.5, jnp.float32(0.5)):
        with pytest.raises(ValueError, match="needs a random key"):
            drop_path(jnp.ones((2, 3)), rate, None)


# --- Streams ---


def test_streams_write_what_their_equations_say():
    x, y = map(jnp.asarray, pair())
    gate = jnp.float32(0.3)
    expected = {"add": 2 * x + 3 * y, "replace": y, "scalar_gate": 2 * x + 0.3 * 3 * y}
    site = Site(x.shape[-1], skip_scale=2.0, branch_scale=3.0, parameters={"gate": gate})
    for name, want in expected.items():
        stream = STREAMS.get(name)
        carry = stream.write(stream.open(x, site), y, site)
        out = stream.finish(carry, site)
        np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(stream.read(stream.open(x, site), site), x)
        normed = replace(site, norm=lambda slot, z: -z if slot == "final_norm" else z)
        np.testing.assert_array_equal(stream.finish(carry, normed), -out)
