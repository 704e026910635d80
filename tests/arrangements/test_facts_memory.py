"""What the papers say of schemes that look at earlier layers or change over training."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scheme_oracles
from oracles import layer_norm, leaves, quick_jit, tree_map, worst, x64
from tiers import every

from resnorm_jax import TransformerEncoder, arrangements
from resnorm_jax.schemes import STREAMS
from resnorm_jax.schemes.scheduled import progressive
from resnorm_jax.streams import Site

B, L, D = 2, 3, 6
LOOKING_BACK = ("denseformer", "attention_residuals", "block_attention_residuals")
every_scheme = pytest.mark.parametrize("name", LOOKING_BACK)


def encoder(name, depth, **options):
    return TransformerEncoder(depth=depth, heads=2, mlp_width=5, arrangement=name, **options)


def inputs(seed=0, shape=(B, L, D)):
    return np.random.default_rng(seed).normal(size=shape)


def random_params(model, dtype=np.float32, x=None):
    x = jnp.ones((B, L, D)) if x is None else x
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    return jax.tree_util.tree_map_with_path(
        lambda path, p: ((path[-1].key == "scale") + rng.normal(0, 0.4, p.shape)).astype(dtype),
        shapes,
    )


def at_first(model, x):
    return quick_jit(partial(model.init_with_output, return_intermediates=True))(
        jax.random.key(0), x
    )


# --- At first ---


@pytest.mark.table
def test_denseformer_starts_as_a_pre_ln_transformer():
    """2402.02622, section 3: a one-hot at the current layer."""
    x = inputs()
    (out, _), variables = at_first(encoder("denseformer", 5), x)
    params = variables["params"]
    found = np.asarray(params.pop("depth_alpha"))
    np.testing.assert_array_equal(found, np.eye(6)[1:])
    plain = quick_jit(encoder("pre_ln", 5).apply)({"params": params}, x)
    assert worst(out, plain) < 1e-6


@pytest.mark.table
def test_attention_residuals_start_as_the_mean_of_all_sources():
    """2603.15031: w = 0, hence each input is the mean of the embedding and all outputs so far."""
    depth, x = 4, inputs()
    (out, named), variables = at_first(encoder("attention_residuals", depth), x)
    assert not variables["params"]["query_kernel"].any()
    assert variables["params"]["query_kernel"].shape == (2 * depth + 1, D)
    sources = [x]
    for layer in range(depth):
        for sublayer in ("attention", "feed_forward"):
            sources.append(np.asarray(named[f"{sublayer}/branch_out"][layer], float))
            assert worst(named[f"{sublayer}/stream"][layer], np.mean(sources, 0)) < 1e-6
    assert worst(out, layer_norm(np.mean(sources, 0))) < 1e-5


@pytest.mark.table
def test_blocks_are_eight_at_most_and_start_as_their_mean():
    """2603.15031, section 3.2, of 20 layers: six blocks of 3 and one of the 2 that remain."""
    depth, x = 20, inputs()
    (_, named), _ = at_first(encoder("block_attention_residuals", depth), x)
    written = sum(
        np.asarray(named[f"{s}/branch_out"], float) for s in ("attention", "feed_forward")
    )
    blocks = [written[start : start + 3].sum(0) for start in range(0, depth, 3)]
    assert len(blocks) == 7
    assert worst(named["feed_forward/stream"][-1], np.mean([x, *blocks], 0)) < 1e-5
    assert worst(named["feed_forward/stream"][11], np.mean([x, *blocks[:4]], 0)) < 1e-5
    # Within a block: its part so far is a source of its own.
    parts = [x, *blocks[:4], np.asarray(named["attention/branch_out"][12], float)]
    assert worst(named["attention/stream"][12], np.mean(parts, 0)) < 1e-5


# --- Deeper than the comparison with the papers ---


@pytest.mark.table
@pytest.mark.parametrize("name", every(LOOKING_BACK, ["block_attention_residuals"]))
def test_nine_layers_are_the_papers(name):
    """Blocks of two layers, of which some are complete and one is not."""
    with x64():
        model = encoder(name, 9, param_dtype=jnp.float64)
        params, x = random_params(model, np.float64), inputs()
        want = scheme_oracles.encode(name, params, x)
        for changed in (model, replace(model, unroll=3)):
            assert worst(quick_jit(changed.apply)({"params": params}, x), want) < 1e-6


@pytest.mark.table
def test_large_queries_choose_one_source_and_stay_finite():
    """Logits of thousands: the largest is subtracted, place by place and source by source."""
    model, x = encoder("attention_residuals", 2), inputs().astype(np.float32)
    params = random_params(model)
    params["query_kernel"] = 1e4 * params["query_kernel"]
    out, grads = quick_jit(
        jax.value_and_grad(lambda p: (model.apply({"params": p}, x) ** 2).sum())
    )(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves((out, grads)))


@pytest.mark.parametrize("name", every(LOOKING_BACK))
def test_zero_input_has_finite_gradients_in_every_mode(name):
    model = encoder(name, 2)
    params, x = random_params(model), jnp.zeros((B, L, D))

    def loss(x):
        return (model.apply({"params": params}, x) * inputs(3)).sum()

    reverse = quick_jit(jax.grad(loss))(x)
    direction = inputs(4).astype(np.float32)
    _, forward = quick_jit(lambda x, t: jax.jvp(loss, (x,), (t,)))(x, direction)
    assert np.isfinite(reverse).all()
    assert np.sum(reverse * direction) == pytest.approx(float(forward), rel=1e-4)


@every_scheme
def test_sums_of_narrow_streams_are_wide(name):
    """The mean of many bfloat16 outputs is rounded once, not once a layer."""
    site = Site(width=4, layers=64, sublayers=128)
    stream = STREAMS.get(arrangements.get(name).stream)

    def opened():
        made = {p.name: p.create(jax.random.key(0), jnp.float32, site) for p in stream.parameters}
        return stream.open(jnp.ones((1, 1, 4), jnp.bfloat16), replace(site, parameters=made))

    carry = jax.eval_shape(opened)
    buffers = [a for a in jax.tree.leaves(carry) if a.ndim == 4]
    assert buffers
    assert {a.dtype for a in buffers} == {jnp.dtype(jnp.float32)}
    assert jax.eval_shape(stream.view, carry).dtype == jnp.bfloat16


# --- Memory and depth ---


def temporary(model, x):
    """Bytes of the gradient's program, beside its arguments and results."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    gradient = quick_jit(jax.grad(lambda p, x: model.apply({"params": p}, x).sum()))
    return gradient.lower(shapes, x).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.table
@every_scheme
def test_backward_memory_grows_as_depth_and_not_as_its_square(name):
    """Where layers are computed again, all that is kept of one is what it is given."""
    x = jax.ShapeDtypeStruct((1, 2, 128), jnp.float32)
    few, many = (temporary(encoder(name, depth, remat="full"), x) for depth in (12, 48))
    assert many / few < 6  # 4 if linear, 16 if quadratic


@pytest.mark.table
@pytest.mark.parametrize("name", [*LOOKING_BACK, "value_residual"])
def test_deep_stacks_are_finite(name):
    depth = 256
    model = TransformerEncoder(depth=depth, heads=1, mlp_width=8, arrangement=name)
    x = inputs(shape=(1, 2, 8)).astype(np.float32)
    params = quick_jit(model.init)(jax.random.key(0), x)["params"]
    loss, grads = quick_jit(
        jax.value_and_grad(lambda p: (model.apply({"params": p}, x) * inputs(5, x.shape)).sum())
    )(params)
    assert np.isfinite(loss)
    for path, leaf in leaves(grads):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0 or path[-2:] == ("key", "bias"), path


# --- Value residual ---


@pytest.mark.table
def test_values_are_half_the_first_layers():
    """2410.17897: what the first layer's values are changes what all layers attend to."""
    model, x = encoder("value_residual", 3), inputs()
    params = random_params(model)
    assert set(params["layers"]) == {"attention", "feed_forward"}
    out = quick_jit(model.apply)({"params": params}, x)
    # Without their own values the layers after the first still attend to half of the first's.
    silent = tree_map(np.array, params)
    value = silent["layers"]["attention"]["branch"]["value"]
    value["kernel"][1:], value["bias"][1:] = 0, 0
    _, named = quick_jit(partial(model.apply, return_intermediates=True))({"params": silent}, x)
    bias = silent["layers"]["attention"]["branch"]["out"]["bias"]
    assert np.abs(named["attention/branch_out"][2] - bias[2]).max() > 1e-2
    plain = quick_jit(encoder("pre_ln", 3).apply)({"params": params}, x)
    assert worst(out, plain) > 1e-2


def test_value_residual_scans_whatever_the_dtype_of_values():
    for dtype, given in ((None, jnp.bfloat16), (jnp.bfloat16, jnp.float32)):
        model = encoder("value_residual", 2, dtype=dtype)
        x = jax.ShapeDtypeStruct((B, L, D), given)
        out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
        assert out.shape == x.shape


# --- Schedules ---


@cache
def compiled(model):
    return quick_jit(partial(model.apply, return_intermediates=True))


def at_step(model, params, x, step):
    return compiled(model)({"params": params, "schedule": {"step": np.float32(step)}}, x)


def test_prores_warms_up_layer_by_layer():
    """2603.05369: a_l(t) = min(t / (T l), 1), T = 1000; layer l is there after 1000 l updates."""
    depth, x = 4, inputs()
    model = encoder("prores", depth)
    params = random_params(model)
    for step in (0, 250, 1000, 2500, 3999, 4000, 1e6):
        _, named = at_step(model, params, x, step)
        for layer in range(depth):
            share = min(step / (1000 * (layer + 1)), 1)
            before = named["stream_in"][layer]
            for sublayer in ("attention", "feed_forward"):
                want = before + share * named[f"{sublayer}/branch_out"][layer]
                assert worst(named[f"{sublayer}/stream"][layer], want) < 1e-6, (step, layer)
                before = named[f"{sublayer}/stream"][layer]


@pytest.mark.table
def test_prores_is_the_identity_before_the_first_update_and_pre_ln_at_the_end():
    model, x = encoder("prores", 3), inputs().astype(np.float32)
    params = random_params(model)
    _, named = at_step(model, params, x, 0)
    np.testing.assert_array_equal(named["feed_forward/stream"][-1], x)
    plain = quick_jit(encoder("pre_ln", 3).apply)({"params": params}, x)
    without = quick_jit(model.apply)({"params": params}, x)
    np.testing.assert_array_equal(without, plain)
    np.testing.assert_array_equal(at_step(model, params, x, 3000)[0], plain)
    assert worst(at_step(model, params, x, 2000)[0], plain) > 1e-3
    np.testing.assert_allclose(
        at_step(replace(model, unroll=3), params, x, 1500)[0],
        at_step(model, params, x, 1500)[0],
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert variables["schedule"]["step"].shape == ()


def test_another_warm_up_is_another_row():
    stream = progressive(10.0, "quick")
    site = Site(width=1, layer=2, step=jnp.float32(5))
    assert float(stream.write(jnp.zeros(1), jnp.ones(1), site)[0]) == 0.25
    site = replace(site, step=jnp.inf, branch_scale=2.0, skip_scale=3.0)
    assert float(stream.write(jnp.ones(1), jnp.ones(1), site)[0]) == 5.0
