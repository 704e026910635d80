"""What the papers say of these arrangements: constants, first values, growth with depth, faults."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scheme_oracles
from oracles import quick_jit, tree_map, worst
from tiers import every

from resnorm_jax import TransformerEncoder, arrangements
from resnorm_jax.arrangements import Arrangement, Init, NormSlot, Place
from resnorm_jax.config import OptimizerConfig
from resnorm_jax.modules.admin import admin_profile
from resnorm_jax.schemes.by_depth import deepnorm_alpha
from resnorm_jax.training.optimizers import decay_mask, make_optimizer
from resnorm_jax.training.unit_weights import normalize_weights, unit_weights

WIDTH, HEADS = 16, 2
ROLES = ("query", "key", "value", "out", "fc1", "fc2")
CARRIERS = ("value", "out", "fc1", "fc2")


def encoder(row, depth, width=WIDTH, **options):
    return TransformerEncoder(
        depth=depth, heads=HEADS, mlp_width=2 * width, arrangement=row, **options
    )


@cache
def measured(row, depth, width=WIDTH):
    """Kernels' gradients of a random linear loss, and the streams' mean squares, at first."""
    model = encoder(row, depth, width)
    x, cotangent = (jax.random.normal(jax.random.key(k), (2, 4, width)) for k in (100, 7))

    @quick_jit
    def run(key):
        params = model.init(key, x)["params"]

        def loss(p, x):
            out, named = model.apply({"params": p}, x, return_intermediates=True)
            streams = {k: jnp.mean(v**2, (1, 2, 3)) for k, v in named.items() if "/stream" in k}
            return jnp.sum(out * cotangent), (out, streams)

        gradients, (out, streams) = jax.grad(loss, (0, 1), has_aux=True)(params, x)
        return gradients, out, streams

    (grads, dx), out, streams = run(jax.random.key(0))
    for leaf in jax.tree.leaves((grads, dx, out, streams)):
        assert np.isfinite(leaf).all()
    return grads["layers"], jax.tree.map(np.asarray, streams)


def first_to_last(row, depth):
    """Norm of the kernels' gradients of the first layer over that of the last."""
    grads, _ = measured(row, depth)
    kernels = [
        np.asarray(leaf, float)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
        if path[-1].key == "kernel"
    ]
    first, last = (np.sqrt(sum((k[n] ** 2).sum() for k in kernels)) for n in (0, -1))
    return first / last


# --- Constants, by hand ---


@pytest.mark.parametrize(
    ("place", "gain"),
    [
        (Place(12), 1.7827),  # sqrt(ln 24)
        (Place(6, other=18), 1.8177),  # sqrt(ln 54 ln 12 / 3)
        (Place(18, stack="decoder", other=6), 1.9972),  # sqrt(ln 54)
    ],
)
def test_magnetos_gain(place, gain):
    """torchscale: log 2N; log 3M log 2N / 3 and log 3M in an encoder-decoder; under a root."""
    row = arrangements.get("magneto")
    assert set(row.init.gains) == set(CARRIERS)
    for rule in row.init.gains.values():
        assert rule(place) == pytest.approx(gain, abs=1e-4)


def test_t_fixups_gains():
    """layer6ai-labs/T-Fixup: 0.67 N^(-1/4) in the encoder, (9 M)^(-1/4) in the decoder."""
    init = arrangements.get("t_fixup").init
    assert set(init.gains) == set(CARRIERS)
    for rule in init.gains.values():
        assert rule(Place(16)) == pytest.approx(0.335)
        assert rule(Place(9, stack="decoder", other=16)) == pytest.approx(1 / 3)
    assert init.embedding(Place(9)) == pytest.approx(1 / 3)


def test_keels_scale_counts_sublayers():
    rule = arrangements.get("keel").skip_scale
    assert [rule(Place(12, 1, 1, 24)), rule(Place(12, 12, 24, 24))] == [24.0, 24.0]


def test_layer_norm_scaling_counts_layers_not_sublayers():
    rule = arrangements.get("layer_norm_scaling").read_scale
    assert [rule(Place(12, 4, s, 24)) for s in (7, 8)] == [0.5, 0.5]


def test_mix_ln_of_twelve_layers_has_three_of_post_ln():
    """pixeli99/MixLN: 3 of 12; rounded down."""
    row = arrangements.get("mix_ln")
    for depth, post in ((12, 3), (7, 1), (3, 0), (4, 1)):
        rows = [row.in_layer(Place(depth, layer)) for layer in range(1, depth + 1)]
        assert [r.norm_on_stream is not None for r in rows] == [n < post for n in range(depth)]
        assert [r.norm_before is None for r in rows] == [n < post for n in range(depth)]
        assert row.final_norm is not None


def test_sandwich_order_of_24_layers_is_the_official_script():
    """experiments/enwik8_large.sh: five attentions, 19 pairs, five feed-forwards."""
    row = arrangements.get("sandwich_order")
    kinds = [
        branch.kind
        for layer in range(1, 25)
        for group in row.in_layer(Place(24, layer)).order
        for branch in group
    ]
    text = "".join("s" if kind == "attention" else "f" for kind in kinds)
    assert text == "s" * 5 + "sf" * 19 + "f" * 5


# --- Rows that change with depth, against their oracles at a depth where they do ---


@pytest.mark.parametrize(
    ("name", "depth", "segments"),
    [
        ("mix_ln", 5, 2),
        pytest.param("hybrid_norm_star", 3, 2, marks=pytest.mark.table),
        pytest.param("sandwich_order", 5, 3, marks=pytest.mark.table),
    ],
)
def test_rows_that_change_with_depth(name, depth, segments):
    model = TransformerEncoder(depth=depth, heads=2, mlp_width=6, arrangement=name)
    x = np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    assert sum(key.startswith("layers") for key in shapes) == segments
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda s: rng.normal(0.5, 0.4, s.shape).astype(np.float32), shapes)
    mask = np.array([[True] * 4, [True, True, False, False]])
    run = quick_jit(partial(model.apply, return_intermediates=True))
    out, named = run({"params": params}, x, mask)
    wide = tree_map(lambda a: np.asarray(a, float), params)
    expected = scheme_oracles.encode(name, wide, x.astype(float), mask)
    assert worst(np.asarray(out)[mask], expected[mask]) < 1e-5
    # Every intermediate of every sublayer is there, though layers have different ones.
    count = sum(len(v) for k, v in named.items() if k.endswith("/stream"))
    assert count == 2 * depth
    assert len(named["stream_in"]) == depth


# --- First values of the kernels ---


def gained():
    """Rows of these catalogues whose kernels have gains."""
    return [row.name for row in arrangements.rows() if row.init.gains]


@pytest.mark.table
@pytest.mark.parametrize("name", every(gained(), gained()[:1]))
def test_kernels_have_xaviers_deviation_times_the_papers_gain(name):
    """By role and by layer: 2 / (fan_in + fan_out) under the root, times the row's rule."""
    width, depth = 64, 3
    row = arrangements.get(name)
    model = TransformerEncoder(depth=depth, heads=4, mlp_width=2 * width, arrangement=name)
    params = quick_jit(model.init)(jax.random.key(0), jnp.ones((1, 2, width)))["params"]["layers"]
    blocks = {"attention": ROLES[:4], "feed_forward": ROLES[4:]}
    for block, roles in blocks.items():
        for role in roles:
            kernel = np.asarray(params[block]["branch"][role]["kernel"]).reshape(depth, -1)
            fans = width + (2 * width if role.startswith("fc") else width)
            for layer in range(depth):
                place = Place(depth, layer + 1, 2 * layer + 1, 2 * depth)
                gain = row.init.gains[role](place) if role in row.init.gains else 1.0
                assert kernel[layer].std() == pytest.approx(
                    gain * np.sqrt(2 / fans), rel=0.05, abs=1e-9
                ), (role, layer)
    assert any(rule(Place(depth, 2)) != 1 for rule in row.init.gains.values())


@pytest.mark.table
def test_an_encoder_beside_a_decoder_has_its_own_gain():
    """2210.06423: 6 layers beside 18: sqrt(ln 54 ln 12 / 3) = 1.8177."""
    model = TransformerEncoder(
        depth=6, heads=4, mlp_width=64, arrangement="magneto", decoder_depth=18
    )
    params = quick_jit(model.init)(jax.random.key(0), jnp.ones((1, 2, 64)))["params"]["layers"]
    found = np.asarray(params["feed_forward"]["branch"]["fc1"]["kernel"]).std()
    assert found == pytest.approx(1.8177 * np.sqrt(2 / 128), rel=0.02)


@pytest.mark.table
@pytest.mark.parametrize(
    ("name", "gain"),
    [
        ("t_fixup", (9 * 2) ** -0.25),
        pytest.param("pre_ln", 1.0, marks=pytest.mark.table),
    ],
)
def test_token_embeddings_have_the_arrangements_deviation(name, gain):
    from resnorm_jax.build import build_model
    from resnorm_jax.config import experiment, from_dict

    meta = {"kind": "tokens", "classes": ["a", "b"], "vocabulary": [str(n) for n in range(500)],
            "max_length": 4, "shape": []}  # fmt: skip
    fields = {"arrangement": name, "width": 16, "depth": 2, "heads": 2}
    config = experiment(data={"source": "listops"}, model=fields).to_dict()
    model = build_model(from_dict(config), meta)
    params = quick_jit(model.init)(jax.random.key(0), jnp.ones((1, 4), jnp.int32))["params"]
    table = np.asarray(params["front_end"]["embed"]["embedding"])
    assert table.std() == pytest.approx(gain, rel=0.03)


# --- Growth with depth ---


@pytest.mark.table
@pytest.mark.parametrize("depth", [4, 64, 1024])
@pytest.mark.parametrize("name", ["deepnorm", "keel"])
def test_first_and_last_layer_have_like_gradients(name, depth):
    """2203.00555 and 2601.19895: stable to 1000 layers."""
    assert 0.8 <= first_to_last(name, depth) <= 1.25


def powers(name, depth=1024):
    """Mean square of the stream after each layer."""
    return measured(name, depth)[1]["feed_forward/stream"]


@pytest.mark.table
def test_sandwich_norms_stream_grows_linearly_in_depth():
    """Each branch adds unit power: about 1 + 2 l, at 4, 64 and 1024 layers."""
    found = powers("sandwich_ln")
    for layer in (4, 64, 1024):
        assert 0.4 < found[layer - 1] / (1 + 2 * layer) < 1.7
    assert powers("sandwich_ln", 4)[3] == pytest.approx(found[3], rel=1e-4)


@pytest.mark.table
def test_pre_lns_stream_grows_linearly_in_depth():
    found = powers("pre_ln")
    assert 10 < found[1023] / found[63] < 25  # 16 if exactly linear
    assert 10 < found[63] / found[3] < 25


@pytest.mark.table
def test_layer_norm_scalings_stream_grows_as_the_logarithm():
    """2502.05795: the curse of depth is gone: less than a constant for each doubling."""
    found = powers("layer_norm_scaling")
    assert found[1023] < 12 < powers("pre_ln")[1023] / 50
    for layer in (4, 16, 64, 256):
        assert found[4 * layer - 1] - found[layer - 1] < 2.5  # each time depth is fourfold


@pytest.mark.table
def test_post_lns_gradients_are_unlike_where_deepnorms_are_like():
    """Or the bound above would say nothing."""
    assert not 0.8 <= first_to_last("post_ln", 64) <= 1.25


DEEP = ("sub_ln", "reordered_ln", "ngpt", "macaron")


@pytest.mark.table
@pytest.mark.parametrize("name", DEEP)
def test_a_thousand_layers_are_finite(name):
    measured(name, 1024, 8)


# --- Faults of other code ---


def _wrong_sign(place):
    return (8 * place.layers) ** 0.25


def test_fault_0_4_deepnorms_gain_is_a_negative_power():
    """Two public baselines have (8 N)^(+1/4): branches that grow with depth instead of shrinking."""
    row = arrangements.get("deepnorm")
    for depth in (4, 64, 1024):
        gains = {rule(Place(depth)) for rule in row.init.gains.values()}
        assert gains == {(8 * depth) ** -0.25}
        assert row.skip_scale(Place(depth)) == (2 * depth) ** 0.25  # and not 2.828 at every depth


@pytest.mark.table
def test_fault_0_4_is_seen_in_the_gradients():
    row = arrangements.get("deepnorm")
    wrong = replace(row, name="wrong", init=Init("normal", dict.fromkeys(CARRIERS, _wrong_sign)))
    assert not 0.8 <= first_to_last(wrong, 64) <= 1.25


@pytest.mark.table
def test_fault_0_5_deepnorms_alpha_scales_the_stream_and_beta_xaviers_normal():
    """Not ``x + alpha f``, and no uniform kernels of another deviation."""
    row = arrangements.get("deepnorm")
    assert (row.skip_scale, row.branch_scale(Place(9))) == (deepnorm_alpha, 1.0)
    assert row.norm_on_stream is not None
    assert row.init.distribution == "normal"
    model = encoder(row, 8)
    x = jax.random.normal(jax.random.key(0), (2, 4, WIDTH))
    run = quick_jit(partial(model.init_with_output, return_intermediates=True))
    (_, named), _ = run(jax.random.key(1), x)
    summed = 2.0 * np.asarray(x, float) + np.asarray(named["attention/branch_out"][0], float)
    centred = summed - summed.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    assert worst(named["attention/stream"][0], normed) < 1e-5


@pytest.mark.table
def test_fault_0_7_swin_v2_is_the_identity_at_first():
    model = encoder("swin_v2", 3)
    x = jax.random.normal(jax.random.key(0), (2, 4, WIDTH))
    run = quick_jit(partial(model.init_with_output, return_intermediates=True))
    (_, named), variables = run(jax.random.key(1), x)
    np.testing.assert_array_equal(named["feed_forward/stream"][-1], x)
    attention = variables["params"]["layers"]["attention"]
    assert not np.asarray(attention["norm_after"]["scale"]).any()
    temperatures = np.exp(attention["branch"]["query_key_log_scale"])
    np.testing.assert_allclose(temperatures, 10.0, rtol=1e-5)


# --- First values of the factors inside ---


@pytest.mark.table
def test_normformer_has_all_its_three_parts_and_shaped_attention_is_the_identity_at_first():
    x = jax.random.normal(jax.random.key(0), (2, 4, WIDTH))
    init = quick_jit(encoder("normformer", 2).init)
    params = init(jax.random.key(0), x)["params"]["layers"]
    assert {"norm_before", "norm_after"} <= set(params["attention"])
    assert "norm_after" not in params["feed_forward"]
    assert "mlp_norm" in params["feed_forward"]["branch"]
    np.testing.assert_array_equal(params["attention"]["branch"]["head_scale"], 1.0)

    model = encoder("shaped_attention", 2)
    run = quick_jit(partial(model.init_with_output, return_intermediates=True))
    (_, named), variables = run(jax.random.key(1), x)
    p = jax.tree.map(lambda a: a[0], variables["params"]["layers"]["attention"]["branch"])
    h = named["attention/branch_in"][0]
    values = jnp.einsum("bld,dhk->blhk", h, p["value"]["kernel"])
    alone = jnp.einsum("blhk,hkd->bld", values, p["out"]["kernel"])  # each position by itself
    assert worst(named["attention/branch_out"][0], alone) < 1e-5
    np.testing.assert_array_equal(named["attention/stream"], named["attention/branch_out"])


@pytest.mark.table
def test_ngpt_steps_five_hundredths_at_first_on_the_sphere():
    model = encoder("ngpt", 3)
    x = 7 * jax.random.normal(jax.random.key(0), (2, 4, WIDTH))
    run = quick_jit(partial(model.init_with_output, return_intermediates=True))
    (out, named), variables = run(jax.random.key(1), x)
    assert worst(np.linalg.norm(out, axis=-1), np.ones((2, 4))) < 1e-5
    for name in ("attention/stream", "feed_forward/stream", "attention/branch_out"):
        assert worst(np.linalg.norm(named[name], axis=-1), np.ones((3, 2, 4))) < 1e-5
    h, y = (np.asarray(named[k][0], float) for k in ("stream_in", "attention/branch_out"))
    step = 0.95 * h + 0.05 * y
    want = step / np.linalg.norm(step, axis=-1, keepdims=True)
    assert worst(named["attention/stream"][0], want) < 1e-5
    layers = variables["params"]["layers"]
    np.testing.assert_allclose(layers["attention"]["gate"], WIDTH**-0.5, rtol=1e-6)
    branch = layers["attention"]["branch"]
    np.testing.assert_array_equal(branch["query_key_scale"], 1.0)
    np.testing.assert_array_equal(layers["feed_forward"]["branch"]["fc1_scale"], 1.0)
    # Weight decay stays away from the factors.
    flags = jax.tree_util.tree_leaves_with_path(decay_mask(variables["params"]))
    assert all(flag == (path[-1].key == "kernel") for path, flag in flags)


@pytest.mark.table
def test_unit_kernels_after_every_update_and_before_the_first():
    """2410.01131: along the stream's axis, whatever the optimizer does."""
    x = jax.random.normal(jax.random.key(0), (2, 4, WIDTH))
    made = quick_jit(encoder("ngpt", 3).init)(jax.random.key(1), x)["params"]
    params = quick_jit(normalize_weights)(made)
    config = OptimizerConfig(unit_weights=True, weight_decay=0.0, learning_rate=0.1)
    optimizer, _ = make_optimizer(config, 10)
    state = quick_jit(optimizer.init)(params)
    noise = jax.tree.map(lambda p: np.sin(7 * np.asarray(p) + 1), params)
    updates, _ = quick_jit(optimizer.update)(noise, state, params)
    moved = quick_jit(optax.apply_updates)(params, updates)
    for tree in (params, moved):
        layers = tree["layers"]
        a, f = layers["attention"]["branch"], layers["feed_forward"]["branch"]
        for kernel, axis in (
            (a["query"], 1), (a["key"], 1), (a["value"], 1), (a["out"], 3),
            (f["fc1"], 1), (f["fc2"], 2),
        ):  # fmt: skip
            lengths = np.linalg.norm(np.asarray(kernel["kernel"]), axis=axis)
            np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(moved):
        step = np.asarray(leaf) - np.asarray(_at(params, path))
        assert np.abs(step).max() > 1e-3, path  # it did move
    plain, _ = make_optimizer(replace(config, unit_weights=False), 10)
    free, _ = quick_jit(plain.update)(noise, quick_jit(plain.init)(params), params)
    np.testing.assert_allclose(  # nothing else is touched
        updates["layers"]["attention"]["gate"], free["layers"]["attention"]["gate"], atol=1e-6
    )
    with pytest.raises(ValueError, match="needs the parameters"):
        unit_weights().update(noise, optax.EmptyState())


def _at(tree, path):
    for key in path:
        tree = tree[key.key]
    return tree


# --- Admin ---


@pytest.mark.table
@pytest.mark.parametrize("masked", every([False, True], [True]))
def test_admins_profile(masked):
    """2004.08249: w_1 = 1; w_i^2 = Var(x_0) + the variances of all branches before."""
    depth = 3
    model = encoder("admin", depth)
    x = 3 * jax.random.normal(jax.random.key(0), (2, 4, WIDTH))
    mask = np.array([[True] * 4, [True, True, False, False]]) if masked else None
    run = quick_jit(partial(model.init_with_output, return_intermediates=True))
    (_, named), variables = run(jax.random.key(1), x, mask)
    valid = np.ones((2, 4), bool) if mask is None else mask
    total, want = np.asarray(x, float)[valid].var(), [1.0]
    for layer in range(depth):
        for block in ("attention", "feed_forward"):
            total += np.asarray(named[f"{block}/branch_out"][layer], float)[valid].var()
            want.append(np.sqrt(total))
    dirty = jnp.where(valid[..., None], x, jnp.nan)
    params = quick_jit(partial(admin_profile, model))(variables, dirty, mask)
    found = [
        params["layers"][block]["skip_scale"][layer]
        for layer in range(depth)
        for block in ("attention", "feed_forward")
    ]
    assert {w.shape for w in found} == {(WIDTH,)}
    np.testing.assert_allclose(np.stack(found), np.array(want[:-1])[:, None] * np.ones(WIDTH), 1e-5)
    # Nothing else changed, and the first weights were 1.
    same = jax.tree_util.tree_leaves_with_path(variables["params"])
    for path, leaf in same:
        if path[-1].key == "skip_scale":
            np.testing.assert_array_equal(leaf, 1.0)
        else:
            np.testing.assert_array_equal(leaf, _at(params, path))


@pytest.mark.table
def test_admins_profile_lets_gradients_through_a_deep_stack():
    """Without it the row is Post-LN, whose first of 256 layers hardly learns."""
    model = encoder("admin", 256)
    x, cotangent = (jax.random.normal(jax.random.key(k), (2, 4, WIDTH)) for k in (0, 1))

    @quick_jit
    def gradients(key):
        variables = model.init(key, x)
        both = variables["params"], admin_profile(model, variables, x)
        return [
            jax.grad(lambda x, p=p: jnp.sum(model.apply({"params": p}, x) * cotangent))(x)
            for p in both
        ]

    before, after = (float(jnp.linalg.norm(g)) for g in gradients(jax.random.key(2)))
    assert before < 1e-3 * after
    assert 0.1 < after / float(jnp.linalg.norm(cotangent)) < 10


def test_admins_profile_of_another_arrangement_is_refused():
    x = jnp.ones((1, 2, WIDTH))
    model = encoder("post_ln", 1)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    with pytest.raises(ValueError, match="no parameter skip_scale"):
        jax.eval_shape(partial(admin_profile, model), variables, x)


# --- A mixture of one's own ---


def test_post_ln_in_the_last_layer_only():
    row = Arrangement(
        name="last_post",
        equation="x + f(LN(x)), LN(x + f(x)) in the last layer",
        source="test",
        norm_before=NormSlot(),
        by_layer=lambda p: (
            {"norm_before": None, "norm_on_stream": NormSlot()} if p.layer == p.layers else {}
        ),
    )
    x = jax.random.normal(jax.random.key(0), (2, 4, WIDTH))
    params = jax.eval_shape(encoder(row, 3).init, jax.random.key(1), x)["params"]
    assert "norm_on_stream" in params["layers_1"]["attention"]
    assert "norm_before" in params["layers_0"]["attention"]
