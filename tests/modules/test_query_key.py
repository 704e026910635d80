"""Norms inside attention and the feed-forward network, by slot: what the equations say."""

from dataclasses import replace

import jax
import numpy as np
import oracles
import pytest
from oracles import quick_jit, worst
from tiers import every

from resnorm_jax import FeedForward, MultiHeadAttention, TransformerEncoder, norms
from resnorm_jax.arrangements import Arrangement, Inside, NormSlot
from resnorm_jax.errors import UserError
from resnorm_jax.planning import plan
from resnorm_jax.schemes.query_key import QUERY_KEY

B, L, D, H = 2, 5, 8, 2
K = D // H


def x(seed=0):
    return np.random.default_rng(seed).normal(size=(B, L, D)).astype(np.float32)


def rms(z, scale):
    return z / np.sqrt((z * z).mean(-1, keepdims=True) + 1e-6) * scale


def unit(z):
    return z / np.sqrt((z * z).sum(-1, keepdims=True))


def whole(function):
    return lambda z, *args: function(z.reshape(B, L, D), *args).reshape(z.shape)


# Each as its source writes it: the logits, not yet divided.
LOGITS = {
    "none": lambda q, k, p: (q, k, K**-0.5),
    "head": lambda q, k, p: (
        rms(q, p["query_norm"]["scale"]), rms(k, p["key_norm"]["scale"]), K**-0.5
    ),
    "full": lambda q, k, p: (
        whole(rms)(q, p["query_norm"]["scale"]), whole(rms)(k, p["key_norm"]["scale"]), K**-0.5
    ),
    "cosine": lambda q, k, p: (
        unit(q) * np.exp(np.minimum(p["query_key_log_scale"], np.log(100)))[:, None], unit(k), 1.0
    ),
    "cosine_learned": lambda q, k, p: (unit(q) * p["query_key_alpha"], unit(k), 1.0),
    "unit_scaled": lambda q, k, p: (
        unit(q) * p["query_key_scale"], unit(k) * p["query_key_scale"], K**0.5
    ),
}  # fmt: skip


def random_params(module, *args):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: rng.normal(0.3, 0.7, p.shape).astype(np.float32), shapes)


def attention(inside, **norms):
    """Attention with something inside, as an arrangement would plan it."""
    row = Arrangement(name="a_test", equation="f(x)", source="test", inside=inside)
    return MultiHeadAttention(H, plan=plan(row, 1, **norms).layer(1).sublayers[0].branches[0])


def feed_forward(inside, *args):
    row = Arrangement(name="a_test", equation="f(x)", source="test", inside=inside)
    return FeedForward(12, *args, plan=plan(row, 1).layer(1).sublayers[1].branches[0])


@pytest.mark.parametrize("name", QUERY_KEY.names())
def test_logits_are_the_sources(name):
    module = attention(Inside(query_key=name), norm="rms")
    params = random_params(module, x())

    @quick_jit
    def run(params, cotangent):
        out, pullback = jax.vjp(lambda p: module.apply({"params": p}, x()), params)
        return out, *pullback(cotangent)

    found, grads = run(params, x(3))
    p = jax.tree.map(lambda a: a.astype(np.float64), params)
    q, k, v = (
        np.einsum("bld,dhk->blhk", x().astype(float), p[r]["kernel"]) + p[r]["bias"]
        for r in ("query", "key", "value")
    )
    q, k, factor = LOGITS[name](q, k, p)
    logits = np.einsum("bthk,bshk->bhts", q, k) * factor
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    heads = np.einsum("bhts,bshk->bthk", weights, v)
    expected = np.einsum("blhk,hkd->bld", heads, p["out"]["kernel"]) + p["out"]["bias"]
    assert worst(found, expected) <= 2e-6
    own = {key: g for key, g in grads.items() if key not in ("query", "key", "value", "out")}
    assert all(np.abs(g).max() > 1e-5 for g in jax.tree.leaves(own))  # learned


def test_first_values_of_the_family():
    """log 10 a head; log2(L^2 - L); 1, by hand."""
    firsts = {"cosine": ("log_scale", np.log([10, 10])), "cosine_learned": ("alpha", np.log2(20)),
              "unit_scaled": ("scale", np.ones((H, K)))}  # fmt: skip
    for name, (parameter, value) in firsts.items():
        module = attention(Inside(query_key=name))
        params = quick_jit(module.init)(jax.random.key(0), x())["params"]
        np.testing.assert_allclose(params[f"query_key_{parameter}"], value, rtol=1e-6)


ALL_INSIDE = Inside(query_key="full", value_norm=NormSlot(), heads_norm=NormSlot(), head_scale=True)


@pytest.mark.parametrize(
    "inside",
    every(
        [
            Inside(value_norm=NormSlot()),
            Inside(heads_norm=NormSlot()),
            Inside(head_scale=True),
            Inside(shaped=True),
            ALL_INSIDE,
        ],
        [Inside(shaped=True), ALL_INSIDE],
    ),
)
def test_norms_inside_attention(inside):
    module = attention(inside)
    mask = np.tril(np.ones((L, L), bool))[None, None]
    params = random_params(module, x())
    p = jax.tree.map(lambda a: a.astype(np.float64), params)
    expected = oracles.multi_head_attention(p, x().astype(float), mask)
    assert worst(quick_jit(module.apply)({"params": params}, x(), mask), expected) <= 2e-6
    kept = {role: p[role] for role in ("query", "key", "value", "out")}
    assert worst(oracles.multi_head_attention(kept, x().astype(float), mask), expected) > 1e-2


def test_norm_inside_the_feed_forward_network():
    module = feed_forward(Inside(mlp_norm=NormSlot()))
    params = random_params(module, x())
    p = jax.tree.map(lambda a: a.astype(np.float64), params)
    found = quick_jit(module.apply)({"params": params}, x())
    assert worst(found, oracles.feed_forward(p, x().astype(float))) <= 2e-6


def test_unit_factors_of_the_feed_forward_network():
    """arXiv 2410.01131: u s_u, v s_v sqrt(D), then u silu(v)."""
    module = feed_forward(Inside(mlp_scale=True), "swiglu")
    params = random_params(module, x())
    p = jax.tree.map(lambda a: a.astype(np.float64), params)
    z = x().astype(float)
    v = (z @ p["fc1"]["kernel"] + p["fc1"]["bias"]) * p["fc1_scale"] * D**0.5
    u = (z @ p["gate"]["kernel"] + p["gate"]["bias"]) * p["gate_scale"]
    expected = (u * v / (1 + np.exp(-v))) @ p["fc2"]["kernel"] + p["fc2"]["bias"]
    assert worst(quick_jit(module.apply)({"params": params}, x()), expected) <= 2e-6
    first = quick_jit(module.init)(jax.random.key(0), x())["params"]
    assert (first["fc1_scale"] == 1).all()


def encoder(**options):
    return TransformerEncoder(depth=4, heads=H, mlp_width=12, **options)


def shapes_of(model):
    tree = jax.eval_shape(model.init, jax.random.key(0), x())["params"]
    return {jax.tree_util.keystr(p, simple=True, separator="/"): a.shape
            for p, a in jax.tree_util.tree_leaves_with_path(tree)}  # fmt: skip


SLOTS = ("embedding_norm", "norm_before", "final_norm", "query_key_norm", "value_norm",
         "heads_norm", "mlp_norm")  # fmt: skip


def test_every_slot_takes_a_norm_of_its_own():
    for slot in SLOTS:
        model = replace(encoder(query_key="head"), norms={slot: "dyt"})
        found = shapes_of(model)
        new = {path for path in found if path.endswith("/alpha")}
        names = {"query_key_norm": ("query_norm", "key_norm")}.get(slot, (slot,))
        assert new, slot
        assert all(path.split("/")[-2] in names for path in new), (slot, new)


@pytest.mark.table
@pytest.mark.parametrize("slot", every(SLOTS, SLOTS[-1:]))
def test_a_norm_of_its_own_is_finite(slot):
    model = replace(encoder(query_key="head"), norms={slot: "dyt"})
    variables = quick_jit(model.init)(jax.random.key(0), x())
    assert np.isfinite(quick_jit(model.apply)(variables, x())).all()


@pytest.mark.table
def test_dyts_first_constants_by_site():
    """jiachenzhu/DyT, LLaMA 7B: attention 0.8, feed-forward 0.2, final 0.2, no bias; by hand."""
    params = quick_jit(encoder(norms=norms.DYT_LLAMA).init)(jax.random.key(0), x())["params"]
    for block, alpha in (("attention", 0.8), ("feed_forward", 0.2)):
        found = params["layers"][block]["norm_before"]
        assert set(found) == {"alpha", "scale"}
        np.testing.assert_allclose(found["alpha"], np.full(4, alpha), rtol=1e-6)
    np.testing.assert_allclose(params["final_norm"]["alpha"], 0.2, rtol=1e-6)
    for name in ("dyt", "derf"):  # the papers' vision models: one constant everywhere
        made = quick_jit(encoder(norm=name).init)(jax.random.key(0), x())["params"]
        layers = made["layers"]
        sites = [made["final_norm"], layers["attention"]["norm_before"]]
        assert all((site["alpha"] == 0.5).all() for site in sites)
        assert all((site.get("shift", 0.0) == np.float32(0)) for site in sites[:1])


@pytest.mark.table
def test_norms_that_change_with_depth_are_those_of_the_layers_alone():
    model = encoder(norm="layer*1+rms")
    shapes = shapes_of(model)
    assert shapes["layers_0/attention/norm_before/bias"] == (1, D)
    assert shapes["layers_1/attention/norm_before/scale"] == (3, D)
    assert "layers_1/attention/norm_before/bias" not in shapes
    assert shapes_of(encoder(norm=("layer", "rms", "rms", "rms"))) == shapes
    by_rule = encoder(norm=lambda place: "layer" if place.layer == 1 else "rms")
    assert shapes_of(by_rule) == shapes
    # A function of one stack is the composition of its layers.
    params = random_params(model, x())
    rms_only = encoder(norm="rms")
    joined = jax.tree.map(lambda *a: np.concatenate(a), *(
        {k: {kk: {n: v for n, v in vv.items() if n != "bias"} if kk == "norm_before" else vv
             for kk, vv in block.items()} for k, block in params[f"layers_{i}"].items()}
        for i in (0, 1)
    ))  # fmt: skip
    without = {"layers": joined, "final_norm": {"scale": params["final_norm"]["scale"]}}
    differs = quick_jit(rms_only.apply)({"params": without}, x())
    assert worst(quick_jit(model.apply)({"params": params}, x()), differs) > 1e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"norms": {"norm_after": "rms"}},
            "^norm_after: not read: arrangement 'pre_ln'",
        ),
        ({"norms": {"query_key_norm": "rms"}}, "^query_key_norm: not read"),
        (
            {"norms": {"nrom_before": "rms"}},
            "unknown slot 'nrom_before'; did you mean 'norm_before'",
        ),
        ({"norm": "rms*5"}, "does not fit 4 layers"),
        ({"remat": "full", "remat_every": 3}, "remat_every: 3 does not divide 4 layers; try"),
    ],
)
def test_what_is_not_read_is_told(options, message):
    def use():
        model = encoder(**options)
        params = jax.eval_shape(model.init, jax.random.key(0), x())
        jax.eval_shape(model.apply, params, x())

    with pytest.raises(UserError, match=message):
        use()


@pytest.mark.table
@pytest.mark.parametrize("remat", every(["full", "dots"], ["full"]))
def test_blocks_of_layers_computed_again_change_no_number(remat):
    model = encoder(dropout=0.0)
    params = random_params(model, x())

    def gradient(model):
        def loss(p):
            return (model.apply({"params": p}, x()) * x(5)).sum()

        return quick_jit(jax.value_and_grad(loss))(params)

    plain = gradient(model)
    blocks = gradient(replace(model, remat=remat, remat_every=2))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(blocks), strict=True):
        assert worst(b, a) <= 1e-6
    assert shapes_of(model) == shapes_of(replace(model, remat=remat, remat_every=2))
