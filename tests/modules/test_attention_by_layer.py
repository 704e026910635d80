"""What encoders set of their attention: by layer, in a loop or not, in the plan, and bad choices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit, worst
from tiers import every

import resnorm_jax as rn
from resnorm_jax.errors import UserError
from resnorm_jax.modules.encoder import layer_parameters
from resnorm_jax.planning.by_layer import cycled, pattern_text
from resnorm_jax.schemes.place import Place

D, H, DEPTH, L = 16, 4, 4, 9
FORM = {"heads": H, "kv_heads": 2, "head_width": 6, "attention_scale": 0.3, "rotary": True,
        "use_bias": "query+fc2", "activation": "geglu", "mlp_width": 12}  # fmt: skip
BY_LAYER = {"window": "all+2*2", "rotary_base": "1000+10*2"}
BATCH = np.random.default_rng(0).normal(size=(2, L, D)).astype(np.float32)
MASK = np.arange(L) < np.array([[L], [5]])


def random_params(module, x=BATCH):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: rng.normal(0.1, 0.5, p.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("causal", every([False, True], [True]))
def test_each_layer_has_its_own_window_and_base(causal):
    encoder = rn.TransformerEncoder(
        depth=DEPTH, **FORM, **BY_LAYER, causal=causal, arrangement="post_ln"
    )
    params = random_params(encoder)
    whole = quick_jit(encoder.apply)({"params": params}, BATCH, MASK)
    x = BATCH
    for number, (window, base) in enumerate([(None, 1e3), (2, 10.0), (2, 10.0), (None, 1e3)], 1):
        layer = rn.TransformerEncoderLayer(
            **FORM, window=window, rotary_base=base, causal=causal, arrangement="post_ln",
            place=Place(layers=DEPTH, layer=number),
        )  # fmt: skip
        x = layer.apply({"params": layer_parameters(params, number)}, x, MASK)
    assert worst(whole[0], x[0]) < 2e-5
    assert worst(whole[1, :5], x[1, :5]) < 2e-5


@pytest.mark.table
def test_a_layer_that_stands_alone_reads_the_pattern_at_its_place():
    layer = partial(
        rn.TransformerEncoderLayer, heads=H, place=Place(layers=3, layer=2), rotary=True
    )
    by_place, own = layer(window="all+2*2", rotary_base="9+8*2"), layer(window=2, rotary_base=8.0)
    variables = by_place.init(jax.random.key(0), BATCH)
    np.testing.assert_array_equal(by_place.apply(variables, BATCH), own.apply(variables, BATCH))


@pytest.mark.table
@pytest.mark.parametrize(
    "options", [BY_LAYER, {"relative": "disentangled", "kv_heads": None, "rotary": False}]
)
def test_scanned_is_unrolled_and_rematerialized(options):
    encoder = rn.TransformerEncoder(depth=DEPTH, **{**FORM, **options})
    params = random_params(encoder)

    def loss(module, params):
        return (module.apply({"params": params}, BATCH, MASK) * BATCH).sum()

    ways = ({"unroll": 1}, {"unroll": DEPTH}, {"unroll": 1, "remat": "full", "remat_every": 2})
    found = [quick_jit(jax.grad(partial(loss, encoder.clone(**way))))(params) for way in ways]
    for other in found[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found[0], other
        )


@pytest.mark.table
def test_what_is_not_seen_changes_nothing():
    """Causal, with windows: the gradient says which positions each one depends on."""
    encoder = rn.TransformerEncoder(
        depth=2, heads=2, window=2, causal=True, arrangement="pre_ln", mlp_width=4
    )
    variables = encoder.init(jax.random.key(0), BATCH[:1])
    jacobian = quick_jit(jax.jacrev(lambda x: encoder.apply(variables, x).sum(-1)[0]))(BATCH[:1])
    reached = np.abs(np.asarray(jacobian)[:, 0]).max(-1) > 0
    far = np.arange(L)[:, None] - np.arange(L)
    np.testing.assert_array_equal(reached, (far >= 0) & (far <= 4))  # two layers reach twice as far


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "padded"])
def test_what_says_the_default_compiles_to_the_same_program(mask):
    plain = rn.TransformerEncoder(depth=2, heads=H, rotary=True)
    said = plain.clone(
        window="all", kv_heads=H, head_width=D // H, rotary_base=10_000, relative="none",
        use_bias="query+key+value+out+fc1+fc2",
    )  # fmt: skip
    variables = jax.eval_shape(plain.init, jax.random.key(0), BATCH)
    programs = {
        jax.jit(m.apply).lower(variables, BATCH, mask).as_text() for m in (plain, said)
    }  # fmt: skip
    assert len(programs) == 1


@pytest.mark.table
def test_relative_positions_need_no_others():
    """Two equal tokens at different places differ; without relative positions they do not."""
    x = np.repeat(BATCH[:, :1], 4, axis=1)
    x[:, 0] = BATCH[:, 5]
    for relative, differ in (("none", False), ("disentangled", True), ("bias", True)):
        encoder = rn.TransformerEncoder(depth=1, heads=2, relative=relative, mlp_width=4)
        out = encoder.apply({"params": random_params(encoder, x)}, x)
        assert (np.abs(out[:, 1] - out[:, 3]).max() > 1e-3) == differ


def test_patterns():
    assert cycled("window", "all+64*2", 7, str) == ["all", "64", "64"] * 2 + ["all"]
    assert cycled("window", None, 2, str) == ["None"] * 2
    assert cycled("window", [1, 2], 2, str) == ["1", "2"]
    assert cycled("rotary_base", "1e4", 2, float) == [1e4] * 2
    assert pattern_text([1, 1, 2, 1, 1, 2, 1]) == "1*2+2"
    assert pattern_text([3]) == "3"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"kv_heads": 3}, "kv_heads: 3 does not divide heads=4; try kv_heads=2"),
        ({"kv_heads": 0}, "kv_heads: 0 must be over 0"),
        ({"head_width": -1}, "head_width: -1 must be over 0"),
        ({"attention_scale": 0.0}, "attention_scale: 0.0 must be over 0"),
        ({"window": "64*2+all*9"}, r"window: '64\*2\+all\*9' names 11 layers, and there are 4"),
        ({"window": "al"}, "window: 'al' is not a whole number.*or 'all'"),
        ({"window": 0}, "window: 0 must be over 0.*or 'all'"),
        ({"window": "64*x"}, "window: 'x' in '64\\*x' is not a number of layers"),
        ({"window": [1, 2]}, "window: 2 values for 4 layers"),
        ({"rotary_base": 5.0}, "rotary_base: not read without rotary positions"),
        ({"rotary": True, "rotary_base": "x"}, "rotary_base: 'x' is not a number"),
        ({"relative": "disentangle"}, "relative: unknown name 'disentangle'.*disentangled"),
        ({"relative_buckets": 8}, "relative_buckets: 8 is not read without relative"),
        ({"relative": "disentangled", "kv_heads": 2}, "relative: .*leave kv_heads out"),
        ({"relative": "bias", "relative_positions": 5}, "relative_positions: 5 with .*=32"),
        ({"relative": "grid"}, "relative_buckets: not given; with relative='grid'"),
        (
            {"relative": "grid", "relative_buckets": 2, "relative_positions": 9},
            "relative_positions: 9 is not read with relative='grid'",
        ),
        ({"relative_by_layer": True}, "relative_by_layer: True is not read without relative"),
        (
            {"relative": "disentangled", "relative_by_layer": True},
            "relative_by_layer: layers share the table of 'disentangled'",
        ),
        ({"use_bias": "qurey"}, "use_bias: unknown role 'qurey'.*query"),
        ({"query_key": "unit_scaled", "kv_heads": 2}, "query_key: 'unit_scaled' .*kv_heads out"),
        ({"stream": "delta_rule", "norm": "none"}, "'none': the stream needs a norm there"),
    ],
)
def test_choices_that_do_not_fit(fields, says):
    with pytest.raises(UserError, match=says):
        rn.TransformerEncoder(depth=4, heads=4, **fields).plan(D)


def test_no_norm_by_layer():
    plan = rn.plan("pre_ln", 3, norms={"attention/norm_before": "none*1+layer"})
    stands = [layer.sublayers[0].norm_before is not None for layer in plan.layers]
    assert stands == [False, True, True]
    assert all(layer.sublayers[1].norm_before is not None for layer in plan.layers)
    assert [len(segment.layers) for segment in plan.segments] == [1, 2]
    assert rn.plan("pre_ln", 2, norms={"final_norm": "none"}).final_norm is None


def test_a_plan_shows_it():
    text = str(rn.plan("pre_ln", 4, kv_heads=2, head_width=8, rotary=True, use_bias="fc1",
                       relative="bias", attention_scale=0.5, **BY_LAYER))  # fmt: skip
    for part in ("4 heads of 8 features (2 of keys and values)", "window  all+2*2 positions",
                 "rotary base  1000+10*2", "32 buckets", "biases      fc1", "scores 0.5 q . k",
                 "relative/embedding"):  # fmt: skip
        assert part in text, text


@pytest.mark.table
def test_wide_dtypes_and_half_precision():
    encoder = rn.TransformerEncoder(
        depth=2, heads=2, relative="disentangled", dtype=jnp.bfloat16, mlp_width=8
    )
    params = random_params(encoder)
    half = encoder.apply({"params": params}, BATCH.astype(jnp.bfloat16), MASK)
    assert half.dtype == jnp.bfloat16
    full = encoder.clone(dtype=None).apply({"params": params}, BATCH, MASK)
    assert worst(np.asarray(half, np.float32)[0], full[0]) < 0.1
