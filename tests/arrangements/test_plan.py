"""Plans: which norm stands where, which number holds where, by slot and by depth."""

import itertools
import math
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import resnorm_jax as rn
from resnorm_jax import arrangements
from resnorm_jax.arrangements import ATTENTION, FEED_FORWARD, Arrangement, NormSlot, Place
from resnorm_jax.errors import ChoiceError
from resnorm_jax.modules.stack import split_numbers

PRE = arrangements.get("pre_ln")


def norms_by_layer(plan, slot="norm_before"):
    """Names of the norms in a slot of the first sublayer."""
    found = [getattr(layer.sublayers[0], slot) for layer in plan.layers]
    return [norm and norm.spec.name for norm in found]


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("rms", ["rms"] * 4),
        ("layer*1+rms", ["layer", "rms", "rms", "rms"]),
        ("layer+rms*1", ["layer", "layer", "layer", "rms"]),
        ("layer*2+rms*2", ["layer", "layer", "rms", "rms"]),
        (("rms", "l2", "l2", "rms"), ["rms", "l2", "l2", "rms"]),
        (lambda place: "rms" if place.layer > 3 else "l2", ["l2", "l2", "l2", "rms"]),
        ("rms*4+layer", ["rms"] * 4),
    ],
)
def test_a_norm_for_each_layer(norm, expected):
    plan = rn.plan(PRE, 4, norm=norm)
    assert norms_by_layer(plan) == expected
    # As few runs as there can be.
    assert len(plan.segments) == 1 + sum(a != b for a, b in itertools.pairwise(expected))
    assert [layer.place for layer in plan.layers] == [
        Place(4, n, 2 * n - 1, 8) for n in (1, 2, 3, 4)
    ]
    names = [segment.name for segment in plan.segments]
    assert names == (["layers"] if len(names) == 1 else [f"layers_{n}" for n in range(len(names))])


def test_slots_have_norms_of_their_own():
    plan = rn.plan(PRE, 4, norms={"final_norm": "rms", "norm_before": "dyt*2+rms"})
    assert [len(segment.layers) for segment in plan.segments] == [2, 2]
    assert norms_by_layer(plan) == ["dyt", "dyt", "rms", "rms"]
    assert plan.final_norm.spec.name == "rms"
    one = rn.plan(PRE, 1, norms={"attention/norm_before": "rms"}).layer(1)
    assert [s.norm_before.spec.name for s in one.sublayers] == ["rms", "layer"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": ("rms",) * 3}, "^norm: 3 norms for 4 layers"),
        ({"norms": {"final_norm": "rms*5"}}, r"^final_norm: 'rms\*5' does not fit 4 layers"),
        ({"norm": "rms+layer"}, "does not fit 4 layers"),
        ({"norm": "rms*two+layer"}, "'two' in 'rms.two.layer' is not a number"),
        ({"norms": {"norm_befor": "rms"}}, "unknown slot 'norm_befor'; did you mean 'norm_before'"),
        ({"norms": {"atention/norm_before": "rms"}}, "no sublayer 'atention'; did you mean 'atten"),
        (
            {"norms": {"norm_after": "rms"}},
            "^norm_after: not read: arrangement 'pre_ln' has no norm",
        ),
        (
            {"norms": {"query_key_norm": "rms"}},
            "^query_key_norm: not read: arrangement",
        ),
        (
            {"norms": {"parallel_norm": "rms"}},
            "^parallel_norm: not read: arrangement",
        ),
        ({"norms": {"attention/mlp_norm": "rms"}}, "^attention/mlp_norm: not read: arrangement"),
        ({"norms": {"attention/value_norm": "rms"}}, "^attention/value_norm: not read"),
        ({"norm": "lajer"}, "^norm: unknown name 'lajer'; did you mean 'layer'"),
        ({"norms": {"norm_before": "lajer*2+rms"}}, "^norm_before: unknown name 'lajer'"),
        ({"norm": "dyt", "norm_epsilon": 1e-3}, "^norm_epsilon: norm 'dyt' has no epsilon"),
        ({"stream": "ad"}, "^stream: unknown name 'ad'; did you mean 'add'"),
        ({"query_key": "heads"}, "^query_key: unknown name 'heads'; did you mean 'head'"),
        ({"activation": "gelus"}, "^activation: unknown name 'gelus'; did you mean 'gelu'"),
        ({"remat": "ful"}, "^remat: unknown value 'ful'; did you mean 'full'"),
        ({"remat_every": 2}, "^remat_every: not read without remat"),
        ({"remat": "full", "remat_every": 3}, "^remat_every: 3 does not divide 4 layers; try"),
    ],
)
def test_what_does_not_fit_is_told(options, message):
    with pytest.raises(ChoiceError, match=message):
        rn.plan(PRE, 4, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "^depth: 0 must be over 0"),
        ({"depth": 10**9}, "^depth: 1000000000 is out of range"),
        ({"width": 10**20}, "^width: 1000.* is out of range"),
        ({"heads": 0}, "^heads: 0 must be over 0"),
        ({"mlp_width": -1}, "^mlp_width: -1 must be over 0"),
        ({"norm_epsilon": -1.0}, "^norm_epsilon: -1.0 must not be negative"),
        ({"norm_epsilon": math.nan}, "^norm_epsilon: nan is out of range"),
        ({"drop_path": 1.0}, r"^drop_path: 1.0 must lie in \[0, 1\)"),
        ({"norm": "layer*0+rms"}, r"^norm: 'layer\*0' in 'layer\*0\+rms' is no layer"),
        ({"norm": "layer*+rms"}, "^norm: '' in .* is not a number of layers"),
        ({"norm": "layer*１+rms"}, "^norm: .* is not a number of layers"),
    ],
)
def test_numbers_out_of_their_range_are_told(options, message):
    with pytest.raises(ChoiceError, match=message):
        rn.plan(PRE, **options)


def test_modules_made_in_code_are_checked_as_configs_are():
    x = jax.ShapeDtypeStruct((1, 3, 8), jnp.float32)
    for module, message in (
        (rn.TransformerEncoder(depth=0, heads=2), "^depth: 0"),
        (rn.TransformerEncoder(depth=1, heads=2, norm_epsilon=-1.0), "^norm_epsilon: -1.0"),
        (rn.TransformerEncoderLayer(heads=2, drop_path=math.nan), "^drop_path: nan"),
        (rn.ResidualBlock(nn.Dense(8), norm_epsilon=-1.0), "^norm_epsilon: -1.0"),
    ):
        with pytest.raises(ChoiceError, match=message):
            jax.eval_shape(module.init, jax.random.key(0), x)


def test_a_fixed_scale_needs_a_norm_with_one():
    with pytest.raises(ChoiceError, match=r"^norm: 'l2' has no scale, which the arrangement sets"):
        rn.plan("res_post_norm", 2, norm="l2")


def test_a_norm_that_the_scheme_fixes_is_not_the_models_to_choose():
    with pytest.raises(
        ChoiceError, match=r"^norm_after: not read: arrangement 'ngpt' has .* its own"
    ):
        rn.plan("ngpt", 2, norms={"norm_after": "rms"})
    assert rn.plan("ngpt", 2, norm="rms").final_norm is None
    # All sublayers have a norm of their own there: nobody reads the one for all.
    both = dict.fromkeys(("attention/norm_before", "feed_forward/norm_before"), "rms")
    assert rn.plan("pre_ln", 2, norms=both).layer(1).sublayers[0].norm_before.spec.name == "rms"
    with pytest.raises(ChoiceError, match=r"^norm_before: not read"):
        rn.plan("pre_ln", 2, norms={**both, "norm_before": "dyt"})


def mixed(place):
    return {"norm_on_stream": NormSlot()} if place.layer <= 2 else {"norm_before": NormSlot()}


def test_a_row_that_changes_with_depth_makes_segments():
    row = Arrangement(name="mixed", equation="f(x)", source="test", by_layer=mixed)
    plan = rn.plan(row, 5)
    assert [len(segment.layers) for segment in plan.segments] == [2, 3]
    assert norms_by_layer(plan, "norm_on_stream") == ["layer"] * 2 + [None] * 3
    assert norms_by_layer(plan) == [None] * 2 + ["layer"] * 3
    assert plan.segments[1].layers[0].place == Place(5, 3, 5, 10)


def test_a_layer_alone_is_what_the_row_is_at_its_place():
    for layer, slot in ((2, "norm_on_stream"), (3, "norm_before")):
        alone = rn.TransformerEncoderLayer(heads=2, arrangement="mix_ln", place=Place(8, layer))
        assert getattr(alone.row, slot) == NormSlot()
        block = rn.ResidualBlock(nn.Dense(4), arrangement="mix_ln", place=alone.place)
        made = jax.eval_shape(block.init, jax.random.key(0), jnp.ones((1, 2, 4)))["params"]
        assert set(made) == {"branch", slot}


def test_sublayers_are_counted_when_orders_differ():
    def order(place):
        return {"order": ((ATTENTION,),)} if place.layer == 1 else {}

    plan = rn.plan(Arrangement(name="orders", equation="f(x)", source="test", by_layer=order), 3)
    assert [(p.place.sublayer, p.place.sublayers) for p in plan.layers] == [(1, 5), (2, 5), (4, 5)]
    numbers = [s.sublayer for layer in plan.layers for s in layer.numbers.sublayers]
    assert numbers == [1, 2, 3, 4, 5]
    assert [[s.position for s in layer.sublayers] for layer in plan.layers] == [[1], [1, 2], [1, 2]]
    assert [[s.last for s in layer.sublayers] for layer in plan.layers] == [
        [True], [False, True], [False, True],
    ]  # fmt: skip


def test_layers_are_counted_from_one():
    plan = rn.plan("pre_ln", 3)
    assert [plan.layer(n).numbers.layer for n in (1, 2, 3)] == [1, 2, 3]
    for number in (0, 4, -1):
        with pytest.raises(IndexError, match="layers count from 1"):
            plan.layer(number)


def test_a_row_at_a_sublayer():
    row = replace(PRE, by_sublayer={ATTENTION: {"norm_before": None}})
    assert row.at((ATTENTION,)).norm_before is None
    assert row.at((FEED_FORWARD,)) is row
    assert rn.plan(row, 1).layer(1).sublayers[0].norm_before is None


def test_names_are_no_sublayers():
    for fields in ({"order": (("attention",),)}, {"by_sublayer": {"attention": {}}}):
        with pytest.raises(TypeError, match=r"'attention' in order or by_sublayer is not a Branch"):
            Arrangement(name="a_test", equation="f(x)", source="test", **fields)


def test_constants_know_which_stack_they_are_in():
    """Wang et al. 2022, figure 2, of an encoder with 18 layers and a decoder with 6, by hand."""
    for depth, stack, other, alpha, beta in (
        (18, "encoder", 6, 1.8661, 0.3776),
        (6, "decoder", 18, 2.0598, 0.3433),
    ):
        beside = Place(stack=stack, other=other)
        numbers = rn.plan("deepnorm", depth, stack=beside).layer(depth).numbers.sublayers[1]
        assert numbers.skip_scale == pytest.approx(alpha, abs=1e-4)
        assert numbers.gains[0]["fc1"] == pytest.approx(beta, abs=1e-4)


@pytest.mark.parametrize("name", ["layer_norm_scaling", "ds_init", "pre_ln", "sandwich_order"])
def test_numbers_that_vary_are_filled_in_again(name):
    """What is fixed stays a Python number; what varies comes from the stacked arrays."""
    for segment in rn.plan(name, 6, drop_path=0.3).segments:
        fill, varying = split_numbers(segment)
        for index, layer in enumerate(segment.layers):
            found = fill([column[index] for column in varying])
            assert jax.tree.structure(found) == jax.tree.structure(layer.numbers)
            pairs = zip(jax.tree.leaves(found), jax.tree.leaves(layer.numbers), strict=True)
            assert all(float(a) == pytest.approx(float(b), rel=1e-6) for a, b in pairs)
            assert isinstance(found.sublayers[0].skip_scale, float)  # alike in all of these


def test_values_of_the_first_layer_are_mixed_in_by_self_attention_alone():
    planned = rn.plan("value_residual", depth=3, cross_attention=True).layer(2)
    shares = {s.name: s.branches[0].value_residual for s in planned.sublayers[:2]}
    assert shares == {"attention": 0.5, "cross_attention": None}
