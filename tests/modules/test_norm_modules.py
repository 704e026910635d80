"""The norm modules stand in for flax.linen's: fields, parameters, values, dtypes, nnx."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from flax import nnx
from oracles import quick_jit, worst
from tiers import every

import resnorm_jax as rn
from resnorm_jax import norms

PAIRS = {"LayerNorm": (rn.LayerNorm, nn.LayerNorm), "RMSNorm": (rn.RMSNorm, nn.RMSNorm)}
AXES = [
    {},
    {"reduction_axes": (1, 2), "feature_axes": (1, 2)},
    {"reduction_axes": (-1, 1), "feature_axes": -1},
    {"reduction_axes": -1, "feature_axes": 1},
    {"reduction_axes": 0, "feature_axes": (2, 0)},
]
pair = pytest.mark.parametrize("name", PAIRS)


def inputs(seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(0.3, 2, (3, 4, 6)).astype(dtype)


def random_like(variables, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: rng.normal(0.5, 1, p.shape).astype(p.dtype), variables)


@pair
def test_fields_of_flax_are_fields_of_ours_with_the_same_defaults(name):
    ours, flax = ({f.name: f for f in dataclasses.fields(m)} for m in PAIRS[name])
    assert set(flax) <= set(ours)
    for field in set(flax) - {"parent", "name", "use_fast_variance"}:
        default = flax[field].default
        if field.endswith("_init"):  # compare what the initializers make
            made = [f[field].default(jax.random.key(0), (3,), jnp.float32) for f in (ours, flax)]
            np.testing.assert_array_equal(*made)
        else:
            assert ours[field].default == default, field
    assert {f for f in ours if f not in flax} <= {"scale_offset"}
    # The one default that differs, and has no effect here.
    assert (ours["use_fast_variance"].default, flax["use_fast_variance"].default) == (False, True)


@pytest.mark.parametrize("axes", every(AXES))
@pair
def test_parameters_travel_both_ways(name, axes):
    x = inputs()
    ours, flax = (module(**axes) for module in PAIRS[name])
    ours_variables, flax_variables = (m.init(jax.random.key(0), x) for m in (ours, flax))
    assert jax.tree.map(np.shape, ours_variables) == jax.tree.map(np.shape, flax_variables)
    jax.tree.map(np.testing.assert_array_equal, ours_variables, flax_variables)
    for variables in (random_like(ours_variables), random_like(flax_variables, 2)):
        weights = np.random.default_rng(4).normal(size=x.shape).astype(np.float32)

        def run(module, variables=variables, weights=weights):
            def loss(variables, x):
                out = module.apply(variables, x)
                return (out * weights).sum(), out

            grads, out = quick_jit(jax.grad(loss, (0, 1), has_aux=True))(variables, x)
            return [out, *jax.tree.leaves(grads)]

        for found, expected in zip(run(ours), run(flax), strict=True):
            assert worst(found, expected) <= 2e-6


@pytest.mark.parametrize(
    "options",
    every(
        [
            {"use_scale": False},
            {"use_bias": False},
            {"epsilon": 0.1},
            {
                "scale_init": nn.initializers.constant(3.0),
                "bias_init": nn.initializers.constant(-2.0),
            },
            {"use_fast_variance": True, "force_float32_reductions": False},
        ],
        [{"epsilon": 0.1}],
        "-".join,
    ),
)
@pair
def test_options_mean_what_they_mean_in_flax(name, options):
    options = {
        k: v for k, v in options.items() if name == "LayerNorm" or not k.startswith(("use_b", "b"))
    }
    x = inputs()
    outputs = []
    for module in (m(**options) for m in PAIRS[name]):
        out, variables = module.init_with_output(jax.random.key(0), x)
        outputs.append((out, jax.tree.map(np.shape, variables)))
    assert worst(outputs[0][0], outputs[1][0]) <= 2e-6
    assert outputs[0][1] == outputs[1][1]


@pair
def test_masks_mean_what_they_mean_in_flax(name):
    x = inputs()
    mask = np.random.default_rng(0).random(x.shape) < 0.7
    ours, flax = (module() for module in PAIRS[name])
    variables = random_like(ours.init(jax.random.key(0), x))
    found, expected = (m.apply(variables, x, mask=mask) for m in (ours, flax))
    assert worst(np.where(mask, found, 0), np.where(mask, expected, 0)) <= 2e-6
    assert not np.asarray(found)[~mask].any()


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        (jnp.bfloat16, None, jnp.bfloat16),
        (jnp.float32, jnp.bfloat16, jnp.bfloat16),
        *(
            pytest.param(*dtypes, marks=pytest.mark.table)
            for dtypes in (
                (jnp.float32, None, jnp.float32),
                (jnp.float16, None, jnp.float16),
                (jnp.bfloat16, jnp.float32, jnp.float32),
                (jnp.int32, None, jnp.float32),
            )
        ),
    ],
)
@pair
def test_dtypes(name, given, dtype, expected):
    module = PAIRS[name][0](dtype=dtype)
    x = jnp.asarray(inputs(dtype=np.float32) * 3, given)
    variables = random_like(module.init(jax.random.key(0), x))
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    out = module.apply(variables, x)
    assert out.dtype == expected
    p = {k: np.asarray(v, float) for k, v in variables["params"].items()}
    oracle = {"LayerNorm": oracles.layer_norm, "RMSNorm": oracles.rms_norm}[name]
    want = oracle(np.asarray(x, float), **p)
    # One rounding to the result's dtype, and nothing coarser on the way.
    unit = float(jnp.finfo(expected).eps)
    np.testing.assert_allclose(np.asarray(out, float), want, rtol=unit, atol=2e-6)


@pair
def test_param_dtype(name):
    module = PAIRS[name][0](param_dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), jnp.asarray(inputs()))
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.bfloat16)}


def test_zero_centred_scale():
    module = rn.RMSNorm(scale_init=nn.initializers.zeros, scale_offset=1.0)
    x = inputs()
    out, variables = module.init_with_output(jax.random.key(0), x)
    assert not np.asarray(variables["params"]["scale"]).any()
    assert worst(out, oracles.rms_norm(x.astype(float))) < 5e-7


@pair
def test_nnx_can_wrap_it(name):
    x = jnp.asarray(inputs())
    linen = PAIRS[name][0]()
    model = nnx.bridge.ToNNX(linen, rngs=nnx.Rngs(0)).lazy_init(x)
    variables = random_like(linen.init(jax.random.key(0), x))
    for key, value in variables["params"].items():
        assert getattr(model, key).shape == value.shape
        getattr(model, key)[...] = jnp.asarray(value)
    np.testing.assert_array_equal(model(x), linen.apply(variables, x))


def test_the_table_of_norms():
    assert {"layer", "rms"} <= set(norms.names())
    for row in norms.rows():
        assert row.equation
        assert row.source
    for row in map(norms.get, ("layer", "rms")):
        assert "arXiv" in row.source
        module = row.build(name="n", epsilon=0.5, scale_init=0.25, param_dtype=jnp.bfloat16)
        assert (module.epsilon, module.name, module.param_dtype) == (0.5, "n", jnp.bfloat16)
        variables = module.init(jax.random.key(0), jnp.ones((2, 3)))
        np.testing.assert_array_equal(variables["params"]["scale"], [0.25] * 3)
        assert row.build(name="n").epsilon == 1e-6
    with pytest.raises(ValueError, match="did you mean 'layer"):
        norms.get("layr")
