"""`rn.Norm`: any row of the table as a module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import every

import resnorm_jax as rn

X = np.random.default_rng(0).normal(size=(2, 3, 16)).astype(np.float32)
CONDITION = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)


def context(name):
    told = rn.norms.get(name).context
    return {key: value for key, value in {"condition": CONDITION}.items() if key in told}


@pytest.mark.parametrize("name", every(rn.norms.names(), ["layer", "dyt", "ada_layer", "batch"]))
def test_it_is_the_rows_own_module(name):
    own = rn.norms.get(name).build(name="x")
    made = rn.Norm(name)
    variables = made.init(jax.random.key(0), X, **context(name))
    expected = own.init(jax.random.key(0), X, **context(name))
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    y = made.apply(expected, X, **context(name))
    np.testing.assert_array_equal(y, own.apply(expected, X, **context(name)))


def test_fields_reach_the_norm():
    made = rn.Norm("rms", epsilon=1.0, dtype=jnp.bfloat16)
    y = made.apply(made.init(jax.random.key(0), X), X)
    assert y.dtype == jnp.bfloat16
    wide = X.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1)
    np.testing.assert_allclose(np.asarray(y, np.float64), want, rtol=1e-2, atol=1e-3)


def test_a_row_may_be_given_itself_and_masks_may_be_given_to_all():
    mask = jnp.ones((2, 3), bool)
    for norm in (rn.norms.get("scale"), "layer"):
        made = rn.Norm(norm)
        assert made.apply(made.init(jax.random.key(0), X), X, mask=mask).shape == X.shape


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: rn.Norm("layr"), "norm: unknown name 'layr'; did you mean 'layer'"),
        (lambda: rn.Norm("dyt", epsilon=1e-3), "norm 'dyt' has no epsilon"),
    ],
)
def test_what_does_not_fit_is_told(make, says):
    with pytest.raises(ValueError, match=says):
        make().init(jax.random.key(0), X)


def test_a_condition_that_nobody_reads_is_an_error():
    made = rn.Norm("rms")
    variables = made.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match="norm 'rms' reads no condition"):
        made.apply(variables, X, condition=CONDITION)


def test_running_statistics_move_while_training():
    made = rn.Norm("batch")
    variables = made.init(jax.random.key(0), X)
    _, moved = made.apply(variables, X, deterministic=False, mutable=["batch_stats"])
    before, after = variables["batch_stats"], moved["batch_stats"]
    assert any((np.asarray(a) != np.asarray(b)).any() for a, b in zip(
        jax.tree.leaves(before), jax.tree.leaves(after), strict=True
    ))  # fmt: skip


def test_every_norm_function_is_public():
    from resnorm_jax.ops import norms as functions

    for name in functions.__all__:
        assert getattr(rn.norms, name) is getattr(functions, name)
        assert name in rn.norms.__all__
