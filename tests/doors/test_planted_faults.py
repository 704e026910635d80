"""A shape fault, a dtype fault and a gradient fault in each family of functions: chex finds each."""

import importlib

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import every

import resnorm_jax as rn

SHAPE = (2, 3, 4)
X = np.random.default_rng(0).normal(1, 2, SHAPE)
WEIGHTS = np.random.default_rng(1).normal(size=SHAPE)


def attention(x):
    q = x.reshape(2, 3, 2, 2)
    causal = np.tril(np.ones((3, 3), bool))
    # In chunks float64 stays float64, as differences need it.
    y = rn.masked_attention(q, q, q, causal, implementation="chunked")
    return y.reshape(*y.shape[:2], -1)


def added(x):
    return rn.streams.get("add").write(x, jnp.sin(x), rn.streams.Site(width=4, branch_scale=0.5))


def module(made):
    """The module, with parameters of about 1, in the dtype of its input."""

    def call(x):
        one = made.clone(dtype=x.dtype) if hasattr(made, "dtype") else made
        shapes = jax.eval_shape(one.init, jax.random.key(0), x)
        draw = np.random.default_rng(2)
        return one.apply(jax.tree.map(lambda s: draw.normal(1, 0.3, s.shape), shapes), x)

    return call


LAYER = rn.TransformerEncoderLayer(heads=2, mlp_width=4, attention="chunked")
# Each family: a function of it, and a name inside the package through which its values go.
FAMILIES = {
    "norms by rows": (rn.rms_norm, "ops.norms.core._norm"),
    "norms over rows": (rn.norms.batch_norm, "ops.norms.batch.inexact"),
    "norms of groups": (lambda x: rn.norms.group_norm(x, groups=2), "ops.norms.group.inexact"),
    "pointwise norms": (lambda x: rn.norms.pointwise_norm(x, 0.5), "ops.norms.pointwise.floating"),
    "residual": (lambda x: rn.residual(x, jnp.sin(x), branch_scale=0.5), "ops.residual.scaled"),
    "attention": (attention, "ops.attention.masked._silent"),
    "streams": (added, "schemes.stream.residual"),
    "norm modules": (module(rn.LayerNorm()), "norms.layer.layer_norm"),
    "blocks": (
        module(rn.ResidualBlock(nn.Dense(4), arrangement="post_ln")),
        "modules.residual_block.make_norm",
    ),
    "encoder": (module(LAYER), "modules.encoder.zero_padding"),
}


@jax.custom_jvp
def halved(y):
    """Half of the gradient is lost. Not by `stop_gradient`, which chex takes out of what it checks."""
    return y


@halved.defjvp
def _(primals, tangents):
    return primals[0], 0.5 * tangents[0]


FAULTS = {
    "shape": lambda y: jnp.concatenate([y, y], -1),
    "dtype": lambda y: y.astype(jnp.float32),
    "gradient": halved,
}


def planted(fault, function):
    """The function with a fault in the first array that it returns, or that what it returns does."""

    def faulty(*args, **kwargs):
        found = function(*args, **kwargs)
        if callable(found):
            return planted(fault, found)
        if isinstance(found, tuple):
            return (fault(found[0]), *found[1:])
        return fault(found)

    return faulty


def check(fn):
    """Shape and dtype in half precision, then the gradient in float64, through chex."""
    # A function of its own: what JAX has traced of `fn`, it does not trace again.
    half = jax.eval_shape(lambda x: fn(x), jax.ShapeDtypeStruct(SHAPE, jnp.bfloat16))
    chex.assert_shape(half, SHAPE)
    chex.assert_type(half, jnp.bfloat16)
    with jax.enable_x64(True):
        # The tolerance that chex takes grows with the size: see tests/norms/test_testing.py.
        chex.assert_numerical_grads(
            lambda x: (fn(x) * WEIGHTS).sum(), (jnp.asarray(X),), order=1, atol=1e-6 / X.size
        )


@pytest.mark.parametrize("family", every(FAMILIES, ["residual", "streams"]))
def test_what_is_sound_passes(family):
    check(FAMILIES[family][0])


CASES = [(fault, family) for fault in FAULTS for family in FAMILIES]
QUICK = [case for case in CASES if case[0] != "gradient" or case[1] in ("residual", "streams")]


@pytest.mark.parametrize("case", every(CASES, QUICK, "-".join))
def test_a_fault_is_found(monkeypatch, case):
    fault, family = case
    fn, place = FAMILIES[family]
    home, _, name = place.rpartition(".")
    home = importlib.import_module(f"resnorm_jax.{home}")
    monkeypatch.setattr(home, name, planted(FAULTS[fault], getattr(home, name)))
    with pytest.raises(AssertionError):  # of chex, or one of the package's that chex found
        check(fn)
