"""The encoder: every arrangement against its paper's equations, every way to run it alike."""

import zlib
from dataclasses import replace
from functools import cache, partial
from itertools import product

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scheme_oracles
from oracles import assert_trees_close, quick_jit, worst, x64
from tiers import every, inside_traits, one_and_many, schemes

from resnorm_jax import (
    ResidualBlock,
    TransformerEncoder,
    TransformerEncoderLayer,
    arrangements,
    layer_parameters,
)
from resnorm_jax.arrangements import Arrangement, Init, NormSlot, Place
from resnorm_jax.modules import residual_block
from resnorm_jax.schemes import ARRANGEMENTS, STREAMS

B, L, D, H, F, N = 2, 4, 4, 2, 6, 2
VALID = np.array([[True, True, True, False], [True, True, False, False]])
MAY_LOOK = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]], bool)
# Arrangements whose parameters are those of sandwich_ln, norm_on_stream and a gate.
UNSEEN = (("key", "bias"), ("key_norm", "bias"))
every_arrangement = pytest.mark.parametrize("name", arrangements.names())


def encoder(name="pre_ln", **options):
    return TransformerEncoder(
        **{"depth": N, "heads": H, "mlp_width": F, "arrangement": name} | options
    )


def inputs(seed=0, length=L, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=(B, length, D)).astype(dtype)


@cache
def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.ones((B, L, D)))["params"]


def random_params(model, dtype=np.float32, seed=0):
    """Random parameters, so that no scale is 1, no bias and no gate 0, and no two layers equal."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        ending = str(path[-1].key).rpartition("_")[2]
        centre = {"scale": 1.0, "gate": 0.7}.get(ending, 0.0)
        return (centre + rng.normal(0, 0.4, leaf.shape)).astype(dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes(model))


def weights(length=L):
    """A random cotangent on valid positions."""
    full = np.random.default_rng(9).normal(size=(B, L, D))
    return np.pad(np.where(VALID[..., None], full, 0), ((0, 0), (0, length - L), (0, 0)))


@cache
def compiled(model):
    """The program of `run`, kept, so that tests of one model share it."""

    @quick_jit
    def function(params, x, cotangent, mask, options):
        out, pullback = jax.vjp(
            lambda p, x: model.apply({"params": p}, x, mask, **options), params, x
        )
        return out, *pullback(cotangent.astype(out.dtype))

    return function


def run(model, params, x, mask=VALID, cotangent=None, **options):
    """Output, and gradients of parameters and input."""
    cotangent = weights(x.shape[1]) if cotangent is None else cotangent
    return compiled(model)(params, jnp.asarray(x), jnp.asarray(cotangent), mask, options)


def assert_same(found, expected, tolerance=1e-6):
    (out, grads, dx), (want, want_grads, want_dx) = found, expected
    assert worst(np.asarray(out)[VALID], np.asarray(want)[VALID]) <= tolerance
    assert_trees_close(grads, want_grads, tolerance)
    assert worst(dx, want_dx) <= tolerance


def heads_of(name):
    """A norm over a head of two features is little more than a sign: one head of four then."""
    inside = arrangements.get(name).inside
    return 1 if inside.query_key == "head" or inside.value_norm is not None else H


# --- Against the papers' equations ---


@pytest.mark.parametrize("name", every(arrangements.names(), schemes(inside_traits)))
def test_outputs_are_those_of_the_paper(name):
    """Values alone, which compile in a third of the time of their gradients.

    Streams, norm slots and scales of all rows are in `test_a_block_around_a_dense_layer`.
    """
    model = encoder(name, heads=heads_of(name))
    params, x = random_params(model, np.float64), inputs(dtype=np.float64)
    with x64():
        model = replace(model, param_dtype=jnp.float64)
        dirty = np.where(VALID[..., None], x, np.nan)  # what stands in padding is not seen
        run = quick_jit(partial(model.apply, attention_mask=MAY_LOOK))
        out = run({"params": params}, jnp.asarray(dirty), VALID)
        assert out.dtype == jnp.float64
    want = scheme_oracles.encode(name, params, x, VALID, MAY_LOOK)
    assert worst(np.asarray(out)[VALID], want[VALID]) <= 1e-6
    assert np.isfinite(out).all()


@pytest.mark.parametrize("name", every(arrangements.names(), one_and_many()))
def test_outputs_and_all_gradients_are_those_of_the_paper(name):
    model = encoder(name, heads=heads_of(name))
    params = random_params(model, np.float64)
    x, cotangent = inputs(dtype=np.float64), weights()
    tree = {"params": params, "x": x}

    def loss(t):
        out = scheme_oracles.encode(name, t["params"], t["x"], VALID, MAY_LOOK)
        return (out * cotangent).sum()

    expected = oracles.gradients(loss, tree)
    with x64():
        model = replace(model, param_dtype=jnp.float64)
        dirty = np.where(VALID[..., None], x, np.nan)  # what stands in padding is not seen
        out, grads, dx = run(model, params, dirty, attention_mask=MAY_LOOK)
        assert out.dtype == jnp.float64
    want = scheme_oracles.encode(name, params, x, VALID, MAY_LOOK)
    assert worst(np.asarray(out)[VALID], want[VALID]) <= 1e-6
    assert np.isfinite(out).all()
    assert worst(dx, expected["x"]) <= 1e-6
    assert_trees_close(grads, expected["params"], 1e-6)
    for path, leaf in oracles.leaves(expected["params"]):
        # Every parameter counts, but what is added to all keys alike: softmax does not see it.
        assert np.abs(leaf).max() > 1e-4 or path[-2:] in UNSEEN, path


# Streams that differ by a factor alone, which every norm takes out; see test_facts_gates.py.
ONE_OUTPUT = ({"variance_preserving", "sandwich_ln"},)


@pytest.mark.table
def test_arrangements_differ_from_one_another():
    """Or the comparison above could not tell them apart."""

    def draw(path, leaf):  # parameters of one name and shape have one value in all arrangements
        seed = zlib.crc32(f"{jax.tree_util.keystr(path)}{leaf.shape}".encode())
        return np.random.default_rng(seed).normal(0.5, 0.5, leaf.shape)

    outputs = {}
    # A scheme that changes over training ends as another.
    schemes = [r.name for r in arrangements.rows() if not STREAMS.get(r.stream).scheduled]
    for name in schemes:  # constants such as 1.4 / sqrt(N) are 1 at two layers; Mix-LN needs four
        p = jax.tree_util.tree_map_with_path(draw, shapes(encoder(name, depth=4)))
        outputs[name] = scheme_oracles.encode(name, p, inputs(dtype=np.float64), VALID)
    words = {
        "name": "", "equation": "", "source": "", "used_by": "", "aliases": (), "deep": False,
        "usual": False,
    }  # fmt: skip
    forward = {n: replace(arrangements.get(n), init=Init(), **words) for n in outputs}
    names = list(outputs)
    for i, a in enumerate(names):
        for b in names[:i]:
            # Some rows are another initialization of the same function.
            alike = {a, b} in ONE_OUTPUT or forward[a] == forward[b]
            assert alike or worst(outputs[a], outputs[b]) > 1e-2, (a, b)


def test_peri_ln_is_another_name_of_sandwich_ln():
    assert arrangements.get("peri_ln") is arrangements.get("sandwich_ln")
    assert shapes(encoder("peri_ln")) == shapes(encoder("sandwich_ln"))


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"unknown name 'pre_nl'; did you mean 'pre_ln'\?"):
        shapes(encoder("pre_nl"))
    with pytest.raises(ValueError, match="remat: unknown value 'ful'; did you mean 'full'"):
        shapes(encoder(remat="ful"))
    with pytest.raises(ValueError, match="heads=3 does not divide width=4"):
        shapes(encoder(heads=3))


# --- Ways to run it ---


def sloped(name="sloped"):
    """An arrangement whose every constant depends on depth."""
    return Arrangement(
        name=name,
        equation="(1 + l / 10) x + (1 - s / 20) f(LN(x))",
        source="test",
        norm_before=NormSlot(),
        final_norm=NormSlot(),
        skip_scale=lambda place: 1 + place.layer / 10,
        branch_scale=lambda place: 1 - place.sublayer / 20,
        init=Init("normal", {"fc1": lambda place: float(place.layer)}),
    )


def manual_loop(row, depth, params, x, mask, **options):
    """The layers one after the other, each told its place; then the final norm by hand."""
    for number in range(depth):
        place = Place(depth, number + 1, 2 * number + 1, 2 * depth)
        layer = TransformerEncoderLayer(
            heads=H, mlp_width=F, arrangement=row, place=place, **options
        )
        own = {"params": layer_parameters(params, number + 1)}
        given = None if number else mask
        x = layer.apply(own, x, given, attention_mask=mask[:, None, None, :])
    p = params["final_norm"]
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


@pytest.mark.table
@pytest.mark.parametrize("name", ["pre_ln", "sloped", "mix_ln"])
def test_scanned_unrolled_and_looped_agree(name):
    depth, varies = 4 if name == "mix_ln" else 3, name == "sloped"
    row = sloped() if varies else name
    model = encoder(row, depth=depth)
    params, x = random_params(model), inputs()
    scanned = run(replace(model, unroll=1), params, x)
    assert_same(run(replace(model, unroll=depth), params, x), scanned)

    class Loop:
        def apply(self, variables, x, mask):
            return manual_loop(row, depth, variables["params"], x, mask)

    assert_same(run(Loop(), params, x), scanned)
    if varies:  # the same parameters without the constants give something else
        plain = quick_jit(encoder(depth=depth).apply)({"params": params}, x, VALID)
        assert worst(plain[VALID], scanned[0][VALID]) > 1e-2


def test_unrolling_leaves_no_loop():
    x = jnp.ones((B, L, D))
    model = encoder(unroll=1)

    def text(model):
        return str(jax.jit(model.apply).lower({"params": shapes(model)}, x).as_text())

    assert "stablehlo.while" in text(model)
    assert "stablehlo.while" not in text(replace(model, unroll=N))
    assert shapes(model) == shapes(replace(model, unroll=N))


def test_user_arrangements_are_registered_by_name():
    row = arrangements.register(sloped("sloped_for_a_test"))
    try:
        assert "sloped_for_a_test" in arrangements.names()
        model = encoder("sloped_for_a_test")
        params = random_params(model)
        by_name, by_row = (
            quick_jit(m.apply)({"params": params}, inputs()) for m in (model, encoder(row))
        )
        np.testing.assert_array_equal(by_name, by_row)
        with pytest.raises(ValueError, match="registered already"):
            arrangements.register(row)
    finally:
        ARRANGEMENTS._rows.pop("sloped_for_a_test")


def primitives(jaxpr):
    """Names of all operations of a program, inner programs' included."""
    for equation in jaxpr.eqns:
        yield str(equation.primitive)
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_program):
            if is_program(value):
                yield from primitives(getattr(value, "jaxpr", value))


def is_program(value):
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


@pytest.mark.table
@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_norm_that_adds_the_streams_gradient_changes_no_bit(norm, monkeypatch):
    model = encoder(norm=norm)
    x = jax.random.normal(jax.random.key(0), (B, L, D))
    params = model.init(jax.random.key(1), x)

    def run():
        def loss(params, x):
            return jnp.sum(jnp.sin(model.apply(params, x)))

        gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))
        added = str(jax.make_jaxpr(gradients)(params, x)).count("stream_g")
        return added, gradients(params, x)

    added, found = run()
    apart = lambda *given: (residual_block.apply_norm(*given), given[1])  # noqa: E731
    monkeypatch.setattr(residual_block, "norm_and_stream", apart)
    none, want = run()
    assert (added > 0, none) == (True, 0)
    chex.assert_trees_all_equal(found, want)


def test_rematerialization_changes_the_program_and_no_number():
    x = inputs()
    model = encoder(depth=3)
    params = random_params(model)
    found, products = {}, {}
    for remat in ("none", "dots", "full"):
        changed = replace(model, remat=remat)
        found[remat] = run(changed, params, x)
        gradient = jax.grad(lambda p, m=changed: m.apply({"params": p}, x).sum())
        program = jax.make_jaxpr(gradient)(params).jaxpr
        products[remat] = list(primitives(program)).count("dot_general")
    assert_same(found["full"], found["none"])
    assert_same(found["dots"], found["none"])
    # Everything is computed again; or all but the products with the kernels (attention's own two
    # products have batch dimensions); or nothing.
    assert products["full"] > products["dots"] > products["none"] > 0


# --- Padding ---


@pytest.mark.table
def test_padding_changes_no_valid_output_and_no_gradient():
    model = encoder("sandwich_ln")
    params, x = random_params(model), inputs()
    expected = run(model, params, x)
    longer = np.concatenate([x, 100 * inputs(5, 3)], axis=1)
    mask = np.pad(VALID, ((0, 0), (0, 3)))
    out, grads, dx = run(model, params, longer, mask)
    assert not np.asarray(dx)[:, L:].any()
    assert_same((out[:, :L], grads, dx[:, :L]), expected, 1e-5)


@pytest.mark.table
def test_nan_in_padding_changes_nothing_at_all():
    """Even when the loss touches padded positions; the other arrangements are seen above."""
    model = encoder()
    params, x = random_params(model), inputs()
    dirty = np.where(VALID[..., None], x, np.nan).astype(np.float32)
    found, expected = (run(model, params, z, cotangent=np.cos(7 * x)) for z in (dirty, x))
    chex.assert_tree_all_finite(found)
    chex.assert_trees_all_equal(found, expected)
    assert not np.asarray(found[2])[~VALID].any()
    layer = TransformerEncoderLayer(heads=H, mlp_width=F)
    single = quick_jit(layer.apply)({"params": layer_parameters(params, 1)}, dirty, VALID)
    assert np.isfinite(single).all()
    # A row without any valid position.
    nothing = np.array([[True] * L, [False] * L])
    found = run(model, params, x, nothing, np.cos(7 * x))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


# --- Intermediates ---


def test_intermediates_add_up():
    model = encoder("pre_ln")
    params, x = random_params(model), inputs()
    both = quick_jit(partial(model.apply, return_intermediates=True))
    out, named = both({"params": params}, x, VALID)
    keys = [
        f"{s}/{k}"
        for s in ("attention", "feed_forward")
        for k in ("branch_in", "branch_out", "stream")
    ]
    assert set(named) == {"stream_in", *keys}
    assert {v.shape for v in named.values()} == {(N, B, L, D)}
    assert worst(out, quick_jit(model.apply)({"params": params}, x, VALID)) < 1e-6
    clean = np.where(VALID[..., None], x, 0)
    np.testing.assert_array_equal(named["stream_in"][0], clean)
    np.testing.assert_array_equal(named["stream_in"][1], named["feed_forward/stream"][0])
    middle = named["stream_in"] + named["attention/branch_out"]
    assert worst(named["attention/stream"], middle) < 1e-6
    last = named["attention/stream"] + named["feed_forward/branch_out"]
    assert worst(named["feed_forward/stream"], last) < 1e-6
    for n in range(N):
        p = layer_parameters(params, n + 1)["feed_forward"]["norm_before"]
        normed = oracles.layer_norm(np.asarray(named["attention/stream"][n], float), **p)
        assert worst(named["feed_forward/branch_in"][n], normed) < 1e-6
    p = params["final_norm"]
    final = oracles.layer_norm(np.asarray(named["feed_forward/stream"][-1], float), **p)
    assert worst(out, final) < 1e-6


# --- Initialization ---


@pytest.mark.table
@pytest.mark.parametrize("name", every(["rezero", "res_post_norm"], ["rezero"]))
def test_some_arrangements_are_the_identity_at_first(name):
    model = encoder(name)
    x = inputs()
    init = quick_jit(partial(model.init_with_output, return_intermediates=True))
    (_, named), _ = init(jax.random.key(0), x)
    np.testing.assert_array_equal(named["feed_forward/stream"][-1], x)
    # Not because the branches were silent.
    inner = {"rezero": "branch_out", "res_post_norm": "branch_in"}[name]
    assert np.abs(named[f"attention/{inner}"]).max() > 0.1


@pytest.mark.parametrize("name", every(["deepnorm", "pre_ln"], ["deepnorm"]))
def test_kernels_have_xaviers_deviation_times_the_papers_gain(name):
    width, mlp, depth = 64, 128, 6
    model = TransformerEncoder(depth=depth, heads=4, mlp_width=mlp, arrangement=name)
    params = quick_jit(model.init)(jax.random.key(0), jnp.ones((1, 2, width)))["params"]["layers"]
    beta = (8 * depth) ** -0.25 if name == "deepnorm" else 1.0
    gains = {"query": 1.0, "key": 1.0, "value": beta, "out": beta, "fc1": beta, "fc2": beta}
    for role, gain in gains.items():
        sublayer = "feed_forward" if role.startswith("fc") else "attention"
        kernel = np.asarray(params[sublayer]["branch"][role]["kernel"])
        fans = width + (mlp if role.startswith("fc") else width)
        assert kernel.std() == pytest.approx(gain * np.sqrt(2 / fans), rel=0.02), role
        assert abs(kernel.mean()) < 0.005
        # Uniform numbers reach sqrt(3) deviations, normal ones go beyond.
        assert (np.abs(kernel).max() / kernel.std() > 2.5) == (name == "deepnorm")
        assert not np.asarray(params[sublayer]["branch"][role]["bias"]).any()
        per_layer = kernel.reshape(depth, -1)
        assert np.abs(np.corrcoef(per_layer) - np.eye(depth)).max() < 0.1  # drawn anew each layer


def test_gains_that_vary_with_depth_reach_each_layer():
    model = TransformerEncoder(depth=3, heads=4, mlp_width=128, arrangement=sloped())
    params = quick_jit(model.init)(jax.random.key(0), jnp.ones((1, 2, 64)))["params"]["layers"]
    found = np.asarray(params["feed_forward"]["branch"]["fc1"]["kernel"]).std((1, 2))
    np.testing.assert_allclose(found, np.array([1, 2, 3]) * np.sqrt(2 / 192), rtol=0.05)


# --- Dropout ---


def test_deterministic_needs_no_rng_and_training_does():
    model = encoder(dropout=0.5, attention_dropout=0.5, drop_path=0.5)
    params = random_params(model)
    plain = quick_jit(encoder().apply)({"params": params}, inputs())
    np.testing.assert_array_equal(quick_jit(model.apply)({"params": params}, inputs()), plain)
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(partial(model.apply, deterministic=False), {"params": params}, inputs())


@pytest.mark.table
def test_layers_draw_different_masks():
    depth, x = 4, jnp.ones((8, 16, D))
    model = encoder("none", depth=depth, dropout=0.5, mlp_width=2 * D)
    params = random_params(model)
    # A branch that is constant shows the mask of its output: make all kernels 0 and all biases 1.
    ones = jax.tree_util.tree_map_with_path(
        lambda path, p: np.full_like(p, path[-1].key == "bias"), params
    )
    apply = quick_jit(partial(model.apply, deterministic=False, return_intermediates=True))

    def masks(key):
        _, named = apply({"params": ones}, x, rngs={"dropout": jax.random.key(key)})
        written = [named[f"{s}/branch_out"] for s in ("attention", "feed_forward")]
        np.testing.assert_array_equal(written, np.ones_like(written))  # as the branch wrote it
        return [np.asarray(named[f"{s}/stream"]) for s in ("attention", "feed_forward")]

    drawn = masks(0)
    assert {*np.unique(drawn[0])} == {0.0, 2.0}
    flat = np.concatenate([m.reshape(depth, -1) for m in drawn]) / 2
    assert np.abs(np.corrcoef(flat) - np.eye(2 * depth)).max() < 0.25
    assert (masks(1)[0] != drawn[0]).any()
    np.testing.assert_array_equal(masks(0)[0], drawn[0])


def test_drop_path_rises_linearly_with_depth():
    depth, rows = 4, 2000
    model = encoder("none", depth=depth, drop_path=0.4)
    params = jax.tree_util.tree_map_with_path(
        lambda path, p: np.full(p.shape, path[-1].key == "bias", np.float32),
        shapes(model),
    )
    _, named = quick_jit(partial(model.apply, deterministic=False, return_intermediates=True))(
        {"params": params}, jnp.ones((rows, 1, D)), rngs={"dropout": jax.random.key(0)}
    )
    for sublayer in ("attention", "feed_forward"):
        stream = np.asarray(named[f"{sublayer}/stream"])[..., 0, 0]
        for layer in range(depth):
            rate = 0.4 * (layer + 1) / depth
            assert abs((stream[layer] == 0).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / rows)
            assert stream[layer].max() == pytest.approx(1 / (1 - rate), rel=1e-5)


# --- Dtypes ---


@pytest.mark.parametrize("name", every(arrangements.names(), one_and_many()))
def test_any_dtype_runs_under_scan(name):
    ends_in_norm = arrangements.get(name).final_norm is not None
    for dtype, given in product([None, jnp.float32, jnp.bfloat16], [jnp.float32, jnp.bfloat16]):
        model = encoder(name, dtype=dtype)
        x = jax.ShapeDtypeStruct((B, L, D), given)
        (out, named), _ = jax.eval_shape(
            partial(model.init_with_output, return_intermediates=True), jax.random.key(0), x
        )
        assert out.dtype == (dtype if dtype is not None and ends_in_norm else given), (dtype, given)
        streams = [value for key, value in named.items() if key.endswith("/stream")]
        assert streams
        assert all(value.dtype == given for value in streams), dtype  # the stream keeps its dtype


# --- Residual blocks around any module ---


class Scaled(nn.Module):
    """A branch that says whether it is told about dropout, and takes a further argument."""

    @nn.compact
    def __call__(self, x, factor=1.0, *, deterministic=True):
        return x * self.param("w", nn.initializers.ones, ()) * factor * (1 if deterministic else 3)


@every_arrangement
def test_a_block_around_a_dense_layer(name):
    block = ResidualBlock(nn.Dense(D), arrangement=name, place=Place(N, 1, 1, 2 * N))
    x = inputs()
    model_params = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(0)
    p = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), model_params)
    dense = p["branch"]

    @quick_jit
    def both(params, x):
        return tuple(block.apply(params, x, deterministic=d) for d in (True, False))

    out, training = both({"params": p}, x)
    wide = {k: oracles.tree_map(lambda a: np.asarray(a, float), v) for k, v in p.items()}
    scheme = scheme_oracles.SCHEMES[name]
    at = scheme_oracles.Spot(
        N, 1, 1, 0, wide, wide, wide, lambda z: z @ dense["kernel"] + dense["bias"]
    )
    expected = scheme.view(scheme.sublayer(scheme.open(x.astype(float)), at))
    assert worst(out, expected) < 1e-6
    np.testing.assert_array_equal(out, training)


def test_a_block_passes_on_what_its_branch_takes():
    block = ResidualBlock(Scaled(), arrangement="residual_only")
    x = inputs()
    variables = block.init(jax.random.key(0), x)
    for options, factor in (({}, 2), ({"deterministic": False}, 4), ({"factor": 5.0}, 6)):
        np.testing.assert_allclose(block.apply(variables, x, **options), factor * x, rtol=1e-6)
    np.testing.assert_allclose(block.apply(variables, x, 0.5), 1.5 * x, rtol=1e-6)


def test_a_branch_of_another_shape_is_refused():
    block = ResidualBlock(nn.Dense(D + 1))
    with pytest.raises(ValueError, match=r"branch.*\(2, 4, 5\).*\(2, 4, 4\)"):
        jax.eval_shape(block.init, jax.random.key(0), inputs())


# --- Every arrangement, every way ---


@pytest.mark.table
@pytest.mark.parametrize("name", every(arrangements.names(), one_and_many()[1:]))
def test_8_devices_unrolled_and_computed_again_agree_with_one_scan(name):
    """One program against another that differs in all three: outputs and summed gradients."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(8, L, D)).astype(np.float32)
    mask = np.arange(L) < rng.integers(1, L + 1, (8, 1))
    cotangent = np.where(mask[..., None], rng.normal(size=x.shape), 0).astype(np.float32)
    scanned = encoder(name, heads=heads_of(name), unroll=1)
    changed = replace(scanned, unroll=N, remat="full")
    assert changed != scanned
    params = random_params(scanned)

    def gradients(model, params, x, mask, cotangent):
        out, pullback = jax.vjp(lambda p: model.apply({"params": p}, x, mask), params)
        return out, pullback(cotangent)[0]

    def shared(*args):
        out, grads = gradients(changed, *args)
        return out, jax.lax.psum(grads, "devices")

    assert jax.device_count() == 8
    out, grads = quick_jit(partial(gradients, scanned))(params, x, mask, cotangent)
    spread = [a.reshape(8, 1, *a.shape[1:]) for a in (x, mask, cotangent)]
    mapped = jax.pmap(shared, "devices", in_axes=(None, 0, 0, 0), out_axes=(0, None))
    found, found_grads = mapped(params, *spread)
    found = np.asarray(found).reshape(out.shape)
    # Rounding of two programs: up to 2.4e-6, by processor, where attention multiplies cosines by 10.
    assert worst(found[mask], np.asarray(out)[mask]) <= 5e-6
    assert_trees_close(found_grads, grads, 1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ResidualBlock(nn.Dense(D), "post_ln", "rms"),
        lambda: TransformerEncoderLayer(H, F, "post_ln", "rms"),
        lambda: TransformerEncoder(N, H, F, "post_ln", "rms"),
    ],
)
def test_fields_after_the_arrangement_are_given_by_keyword(make):
    """No norm is taken for a place, and no number of a decoder's layers for one."""
    with pytest.raises((TypeError, ValueError), match=r"positional argument|parent must be"):
        make()
