"""A Pre-LN encoder and the Pre-RMSNorm one made from it compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit, worst
from tiers import every

import resnorm_jax as rn
from resnorm_jax.interop.pre_rms import centre, pre_rms_params

CASES = {
    "plain": {},
    "gated, rotary": {"activation": "swiglu", "rotary": True},
    "no projection biases": {"use_bias": False},
    "zero-centred": {"norm": "layer_zero_centred"},
    "no norm biases": {"norm": "layer_no_bias"},
    "epsilon": {"norm_epsilon": 0.1},
}
RELATIVE = {"layer": "rms", "layer_no_bias": "rms", "layer_zero_centred": "rms_zero_centred"}


def pair(options):
    """A Pre-LN encoder with random parameters, input and mask; and the encoder it turns into."""
    rng = np.random.default_rng(0)
    encoder = rn.TransformerEncoder(depth=3, heads=2, mlp_width=10, **options)
    x = rng.normal(2, 3, (3, 7, 8)).astype(np.float32) + 20
    mask = np.arange(7) < np.array([7, 3, 1])[:, None]
    shapes = jax.eval_shape(encoder.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda p: rng.normal(0.2, 0.5, p.shape).astype(p.dtype), shapes)
    relative = RELATIVE[options.get("norm", "layer")]
    rest = {key: value for key, value in options.items() if key not in ("norm", "use_bias")}
    return encoder, encoder.clone(norm=relative, use_bias=True, **rest), params, x, mask


@pytest.mark.parametrize("case", every(CASES))
def test_outputs_are_equal(case):
    encoder, converted, params, x, mask = pair(CASES[case])
    new, final_bias = pre_rms_params(params)
    shapes = jax.eval_shape(converted.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, shapes)

    @quick_jit
    def both(params, new, x, mask):
        old = encoder.apply({"params": params}, x, mask)
        return old, converted.apply({"params": new}, centre(x), mask) + final_bias

    old, found = both(params, new, x, mask)
    assert worst(found[mask], old[mask]) <= 1e-5
    assert np.abs(old[mask]).max() > 0.5


@pytest.mark.table
def test_every_step_counts():
    """Leave one step out, and the outputs differ: the test above can tell."""
    encoder, converted, params, x, mask = pair({})
    new, final_bias = pre_rms_params(params)
    old = encoder.apply({"params": params}, x, mask)[mask]

    def error(new, x, final_bias):
        out = converted.apply({"params": new}, x, mask) + final_bias
        return worst(out[mask], old)

    assert error(new, centre(x), final_bias) <= 1e-5
    assert error(new, x, final_bias) > 1e-2
    assert error(new, centre(x), 0) > 1e-2
    for sublayer, part in (
        ("attention", "out"),
        ("attention", "query"),
        ("attention", "value"),
        ("feed_forward", "fc1"),
        ("feed_forward", "fc2"),
    ):
        for leaf in ("kernel", "bias"):
            if part in ("query", "value", "fc1") and leaf == "kernel":
                continue  # kept as it is
            damaged = jax.tree.map(lambda p: p, new)
            kept = params["layers"][sublayer]["branch"][part][leaf]
            damaged["layers"][sublayer]["branch"][part][leaf] = kept
            assert error(damaged, centre(x), final_bias) > 1e-4, (part, leaf)


@pytest.mark.table
def test_the_stream_has_mean_zero_at_every_depth():
    _, converted, params, x, _ = pair({})
    new, _ = pre_rms_params(params)
    _, named = converted.apply({"params": new}, centre(x), return_intermediates=True)
    for key in ("stream_in", "attention/stream", "feed_forward/stream"):
        stream = np.asarray(named[key])
        assert np.abs(stream.mean(-1)).max() <= 1e-5 * np.abs(stream).max(), key


def test_parameters_keep_their_dtype():
    _, _, params, _, _ = pair({})
    new, final_bias = pre_rms_params(jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), params))
    assert {leaf.dtype for leaf in jax.tree.leaves((new, final_bias))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("arrangement", ["post_ln", "sandwich_ln", "res_post_norm", "none"])
def test_other_arrangements_are_refused(arrangement):
    encoder = rn.TransformerEncoder(depth=2, heads=2, arrangement=arrangement)
    params = jax.eval_shape(encoder.init, jax.random.key(0), jnp.ones((1, 3, 4)))["params"]
    with pytest.raises(ValueError, match="Pre-LN"):
        pre_rms_params(params)


def test_norms_without_a_scale_are_refused():
    _, _, params, _, _ = pair({})
    params["final_norm"] = {"alpha": 1.0}
    with pytest.raises(ValueError, match=r"final_norm has \['alpha'\]"):
        pre_rms_params(params)
