"""What the papers say of streams with gates: first values, identities, variances, long stacks."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit, worst
from tiers import every

from resnorm_jax import TransformerEncoder, arrangements
from resnorm_jax.arrangements import Place
from resnorm_jax.schemes import STREAMS, data_gates, gates, linear_maps
from resnorm_jax.streams import Site

D = 12
STREAM_ROWS = tuple(
    row.stream
    for row in (*gates.ROWS, *data_gates.ROWS, *linear_maps.ROWS)
    if row.stream.name
    != "scalar_gate"  # it multiplies in the branch's dtype, and adds in the stream's
)
every_stream = pytest.mark.parametrize("row", STREAM_ROWS, ids=lambda row: row.name)


def encoder(name, depth=2, **options):
    return TransformerEncoder(depth=depth, heads=2, mlp_width=16, arrangement=name, **options)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def first(name, x, depth=2):
    """Output, intermediates and parameters of a model as it is made."""
    run = partial(encoder(name, depth).init_with_output, return_intermediates=True)
    (out, named), variables = quick_jit(run)(jax.random.key(0), x)
    return out, named, variables["params"]


def made(row, x, seed=None, **fields):
    """A site with the stream's parameters: the first ones, or random ones."""
    site = Site(width=x.shape[-1], layers=2, sublayers=4, **fields)
    keys = jax.random.split(jax.random.key(0), max(1, len(row.parameters)))
    parameters = {
        p.name: p.create(key, jnp.float32, site) if seed is None else normal(*p.shape(site), seed=seed)
        for key, p in zip(keys, row.parameters, strict=False)
    }  # fmt: skip
    return replace(site, parameters=parameters)


# --- Identity at first ---


def assert_identity(name, seen):
    x = normal(2, 5, D)
    _, named, params = first(name, x)
    for sublayer in ("attention", "feed_forward"):
        np.testing.assert_array_equal(named[f"{sublayer}/stream"][-1], x)
        assert np.abs(named[f"{sublayer}/{seen}"]).max() > 0.1  # the branches are not silent
    return params


@pytest.mark.table
@pytest.mark.parametrize("name", every(["skip_init", "tanh_zero_gate"], ["skip_init"]))
def test_zero_gates_make_the_identity(name):
    assert_identity(name, "branch_out")


@pytest.mark.table
def test_fixup_starts_as_the_identity():
    layer = assert_identity("fixup", "branch_in")["layers"]
    assert not np.asarray(layer["attention"]["branch"]["out"]["kernel"]).any()
    assert not np.asarray(layer["feed_forward"]["branch"]["fc2"]["kernel"]).any()


@pytest.mark.table
def test_fault_0_6_adaln_zero_is_zero_at_first():
    """A sigmoid of -2 is not a zero gate, and a factor alone is not a modulation."""
    params = assert_identity("adaln_zero", "branch_out")["layers"]
    shapes = jax.tree.map(jnp.shape, params["attention"])
    assert shapes["modulation_kernel"] == (2, D, 3 * D)
    assert shapes["modulation_bias"] == (2, 3 * D)
    assert "read_norm" not in shapes  # a norm without parameters


@pytest.mark.table
def test_the_condition_moves_adaln_zero_row_by_row():
    x, condition = normal(2, 5, D), normal(2, 3, seed=1)
    model = encoder("adaln_zero")
    params = quick_jit(model.init)(jax.random.key(0), x, condition=condition)["params"]
    assert params["layers"]["attention"]["modulation_kernel"].shape == (2, 3, 3 * D)
    params = jax.tree.map(lambda p: np.asarray(p) + 0.3 * normal(*p.shape, seed=2), params)
    apply = quick_jit(model.apply)
    out = apply({"params": params}, x, condition=condition)
    moved = condition + np.array([[0], [1]], np.float32)
    other = apply({"params": params}, x, condition=moved)
    np.testing.assert_array_equal(out[0], other[0])
    assert worst(out[1], other[1]) > 1e-2


@cache
def plain_pre_ln():
    """Output and number of parameters."""
    out, _, params = first("pre_ln", normal(2, 5, D))
    return out, len(jax.tree.leaves(params))


AS_PRE_LN = ("affine_residual", "residual_scale", "laurel_rw", "laurel_lr", "gpas")


@pytest.mark.parametrize("name", AS_PRE_LN)
def test_a_stream_starts_as_plain_addition(name):
    row = STREAMS.get(arrangements.get(name).stream)
    x, y = normal(2, 3, D), normal(2, 3, D, seed=1)
    assert worst(quick_jit(lambda x, y: row.write(x, y, made(row, x)))(x, y), x + y) < 1e-6
    assert row.read(x, Site(width=D)) is x


@pytest.mark.parametrize("name", every(AS_PRE_LN))
def test_some_start_as_plain_pre_ln(name):
    out, _, params = first(name, normal(2, 5, D))
    plain, leaves = plain_pre_ln()
    assert worst(out, plain) < 1e-6  # branches are drawn alike
    assert len(jax.tree.leaves(params)) > leaves


# --- Constants, by hand ---


def test_beams_constants():
    row = arrangements.get("beam")
    for sublayer, skip, branch in (
        (1, 0.70711, 0.70711),
        (2, 0.81650, 0.57735),
        (23, 0.97895, 0.20412),
    ):
        place = Place(12, (sublayer + 1) // 2, sublayer, 24)
        assert row.skip_scale(place) == pytest.approx(skip, abs=1e-5)
        assert row.branch_scale(place) == pytest.approx(branch, abs=1e-5)


def test_minicpms_constant():
    row = arrangements.get("minicpm")
    assert row.branch_scale(Place(62, 5, 9, 124)) == pytest.approx(0.17780, abs=1e-5)
    assert row.skip_scale(Place(62, 5, 9, 124)) == 1


def test_fixups_gains():
    """L^(-1/6) for attention and L^(-1/2) for fc1, L = 2N + 3M branches, as in the authors' code."""
    gains = arrangements.get("fixup").init.gains
    for place, attention, fc1 in (
        (Place(12, 3, 5, 24), 0.58880, 0.20412),
        (Place(6, 1, 1, 12, "encoder", 6), 0.56730, 0.18257),
        (Place(6, 1, 1, 18, "decoder", 6), 0.56730, 0.18257),
    ):
        for role in ("query", "key", "value"):
            assert gains[role](place) == pytest.approx(attention, abs=1e-5)
        assert gains["fc1"](place) == pytest.approx(fc1, abs=1e-5)
        assert gains["out"](place) == gains["fc2"](place) == 0


def test_fault_0_6_layer_scale_starts_at_caits_values():
    (gate,) = STREAMS.get(arrangements.get("layer_scale").stream).parameters
    for layers, value in ((2, 0.1), (18, 0.1), (24, 1e-5), (36, 1e-6), (48, 1e-6)):
        found = gate.create(jax.random.key(0), jnp.float32, Site(width=3, layers=layers))
        np.testing.assert_allclose(found, np.full(3, value), rtol=1e-6)


@pytest.mark.table
def test_fault_0_8_the_gru_gates_bias_is_two_and_its_kernels_are_drawn():
    _, _, params = first("gtrxl", normal(1, 2, D))
    gate = jax.tree.map(np.asarray, params["layers"]["attention"])
    np.testing.assert_array_equal(gate["bias"], np.full((2, D), 2.0))
    for name in ("branch_kernel", "skip_kernel", "candidate_kernel"):
        assert np.asarray(gate[name]).std() == pytest.approx(D**-0.5, rel=0.15)
        assert (gate[name][0] != gate[name][1]).all()


def test_fault_0_6_the_gru_gate_is_near_the_identity():
    """A plain GRU cell changes the stream by 0.6 of its size."""
    row = STREAMS.get("gru_gate")
    x, y = normal(64, 8, 32), normal(64, 8, 32, seed=1)

    @quick_jit
    def both(x, y):
        site = made(row, x)
        zero = {**site.parameters, "bias": jnp.zeros(32)}
        return row.write(x, y, site), row.write(x, y, replace(site, parameters=zero))

    change, plain = (np.linalg.norm(out - x) / np.linalg.norm(x) for out in both(x, y))
    assert 0.05 < change < 0.3
    assert plain > 2 * change


def test_deep_delta_starts_with_rate_one_and_value_two():
    row = STREAMS.get("delta_rule")
    x, y = np.zeros((1, 2, D), np.float32), normal(1, 2, D)
    site = replace(made(row, x), norm=lambda name, z: z)
    key = y / np.linalg.norm(y, axis=-1, keepdims=True)
    assert worst(row.write(x, y, site), 2 * key) < 1e-5


# --- Variance ---


@pytest.mark.table
@pytest.mark.parametrize("depth", every([4, 64, 512], [4]))
def test_variance_preserving_keeps_the_mean_square_at_one(depth):
    model, seeds, width = encoder("variance_preserving", depth), 4, 64
    x = normal(seeds, 1, 16, width)

    def last(key, x):
        (_, named), _ = model.init_with_output(key, x, return_intermediates=True)
        return named["feed_forward/stream"][-1]

    stream = quick_jit(jax.vmap(last))(jax.random.split(jax.random.key(0), seeds), x)
    assert (np.asarray(stream) ** 2).mean() == pytest.approx(1, abs=0.1)


@pytest.mark.table
def test_variance_preserving_is_peri_ln_up_to_a_factor():
    """sqrt(s + 1) of the stream after s sublayers is the sandwich's; norms see no factor."""
    x = normal(2, 5, D)
    out, named, params = first("variance_preserving", x, depth=3)
    run = quick_jit(partial(encoder("sandwich_ln", 3).apply, return_intermediates=True))
    want, sandwich = run({"params": params}, x)
    assert worst(out, want) < 1e-4
    for layer in range(3):
        stream = named["feed_forward/stream"][layer] * np.sqrt(2 * layer + 3)
        assert worst(stream, sandwich["feed_forward/stream"][layer]) < 1e-4


def test_the_convex_gate_keeps_a_unit_variance():
    row = STREAMS.get("unit_gate")
    x, y = normal(500, 8, 16), normal(500, 8, 16, seed=1)
    for gate in (-3.0, 0.0, 0.1, 0.5):
        site = made(row, x)
        site = replace(site, parameters={"gate": jnp.full(16, gate)})
        assert np.var(row.write(x, y, site)) == pytest.approx(1, abs=0.02)
    # Not a stream that is forgotten: its share has a floor.
    site = replace(site, parameters={"gate": jnp.full(16, 30.0)})
    assert worst(row.write(x, np.zeros_like(x), site), 1e-3**0.5 * x) < 1e-6


# --- Identities ---


def test_the_orthogonal_update_adds_nothing_along_the_stream():
    row = STREAMS.get("orthogonal_sum")
    x, y = normal(2, 5, D), normal(2, 5, D, seed=1)
    step = row.write(x, y, made(row, x)) - x
    assert np.abs((step * x).sum(-1)).max() < 1e-5
    assert worst(row.write(np.zeros_like(x), y, made(row, x)), y) == 0


def test_the_delta_rule_rewrites_the_stream_along_the_branch_alone():
    row = STREAMS.get("delta_rule")
    x, y = normal(2, 5, D), normal(2, 5, D, seed=1)
    site = made(row, x, seed=3)
    step = np.asarray(row.write(x, y, site) - x, np.float64)
    key = y / np.linalg.norm(y, axis=-1, keepdims=True)
    assert worst(step, (step * key).sum(-1, keepdims=True) * key) < 1e-5
    p = site.parameters
    rate = 2 / (1 + np.exp(-(x @ p["gate_kernel"] + p["gate_bias"])))
    value = 4 / (1 + np.exp(-(x @ p["value_kernel"] + p["value_bias"])))
    old = (x * key).sum(-1, keepdims=True)
    assert worst(old + (step * key).sum(-1, keepdims=True), old + rate * (value - old)) < 1e-5


def test_gpas_scales_the_stream_and_not_its_gradient():
    row = STREAMS.get("held_back")
    x, y, cotangent = (normal(2, 5, D, seed=n) for n in range(3))
    site = replace(made(row, x), parameters={"gate": jnp.float32(0.8)})
    out, pullback = jax.vjp(lambda x, y: row.write(x, y, site), x, y)
    silu = 0.8 / (1 + np.exp(-0.8))
    assert worst(out, (1 - silu) * (x + y)) < 1e-6
    for gradient in pullback(cotangent):
        np.testing.assert_array_equal(gradient, cotangent)


def test_mean_split_takes_means_over_valid_tokens_alone():
    row = STREAMS.get("mean_split")
    x, y = normal(3, 5, D), normal(3, 5, D, seed=1)
    mask = np.arange(5) < np.array([[5], [2], [0]])
    site = made(row, x, seed=4, mask=mask)
    dirty = [np.where(mask[..., None], z, np.nan) for z in (x, y)]
    out = np.asarray(row.write(*dirty, site))
    short = row.write(x[1:2, :2], y[1:2, :2], made(row, x, seed=4))
    assert worst(out[1, :2], short[0]) < 1e-6
    assert np.isfinite(out[mask]).all()
    # The mean over tokens moves by alpha of the difference of the means, and by nothing else.
    moved = out[0].mean(0) - x[0].mean(0)
    alpha = site.parameters["alpha"]
    assert worst(moved, alpha * (y[0].mean(0) - x[0].mean(0))) < 1e-5


# --- Every stream ---


@pytest.mark.table
@every_stream
def test_a_stream_keeps_the_carrys_dtype_and_scales_both_sides(row):
    x, y = normal(2, 3, D), normal(2, 3, D, seed=1)
    site = made(row, x, seed=2, condition=normal(2, D, seed=3))
    for dtype in (jnp.bfloat16, jnp.float32):
        carry, branch = x.astype(dtype), y.astype(jnp.float32)
        assert row.read(carry, site).dtype == dtype
        out = row.write(carry, branch, site)
        assert (out.dtype, out.shape) == (dtype, x.shape)
    # Computed in float32 and rounded once: the bf16 result is the float32 one, rounded.
    low = row.write(x.astype(jnp.bfloat16), y, site)
    high = row.write(x.astype(jnp.bfloat16).astype(jnp.float32), y, site)
    np.testing.assert_array_equal(low, high.astype(jnp.bfloat16))
    scaled = row.write(x, y, replace(site, skip_scale=0.5, branch_scale=3.0))
    np.testing.assert_allclose(scaled, row.write(0.5 * x, 3 * y, site), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="branch has shape"):
        row.write(x, y[:, :1], site)


@pytest.mark.parametrize("row", every(STREAM_ROWS, STREAM_ROWS[-5:], lambda row: row.name))
def test_a_stream_has_finite_derivatives_at_zero_in_both_modes(row):
    zero = jnp.zeros((2, 3, D))
    site = made(row, zero, condition=zero[:, 0])

    def step(parameters, x, y):
        here = replace(site, parameters=parameters)
        return row.write(x, row.read(x, here) + y, here)

    primals = (site.parameters, zero, zero)
    ones = jax.tree.map(jnp.ones_like, primals)

    @quick_jit
    def derivatives(*primals):
        out, tangent = jax.jvp(step, primals, ones)
        return out, tangent, jax.vjp(step, *primals)[1](jnp.ones_like(out))

    for leaf in jax.tree.leaves(derivatives(*primals)):
        assert np.isfinite(leaf).all()


@pytest.mark.table
@pytest.mark.parametrize(
    "name", ["variance_preserving", "layer_scale", "fixup", "gtrxl", "mv_split"]
)
def test_a_thousand_layers_are_finite_forward_and_backward(name):
    model, x = encoder(name, 1024), normal(1, 3, 8)

    @quick_jit
    def run(key, x, cotangent):
        params = model.init(key, x)
        out, pullback = jax.vjp(lambda p, x: model.apply(p, x), params, x)
        return out, *pullback(cotangent)

    out, grads, dx = run(jax.random.key(0), x, normal(1, 3, 8, seed=1))
    for leaf in jax.tree.leaves((out, grads, dx)):
        assert np.isfinite(leaf).all()
    assert np.abs(dx).max() > 1e-6
