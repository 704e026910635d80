"""Which norm stands where, by slot and by depth: from text, tuples and functions to segments."""

import itertools
from dataclasses import replace

import pytest

from resnorm_jax import arrangements
from resnorm_jax.arrangements import Arrangement, NormSlot, Place, check_slots, plan_layers
from resnorm_jax.errors import UserError

PRE = arrangements.get("pre_ln")


def norms_by_layer(segments, slot="default"):
    return [segment.norms[slot] for segment in segments for _ in segment.places]


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("rms", ["rms"] * 4),
        ("layer*1+rms", ["layer", "rms", "rms", "rms"]),
        ("layer+rms*1", ["layer", "layer", "layer", "rms"]),
        ("layer*2+rms*2", ["layer", "layer", "rms", "rms"]),
        (("a", "b", "b", "a"), ["a", "b", "b", "a"]),
        (lambda place: "a" if place.layer > 3 else "b", ["b", "b", "b", "a"]),
        ("rms*4+layer", ["rms"] * 4),
    ],
)
def test_a_norm_for_each_layer(norm, expected):
    segments = plan_layers(PRE, 4, {"default": norm})
    assert norms_by_layer(segments) == expected
    # As few runs as there can be.
    assert len(segments) == 1 + sum(a != b for a, b in itertools.pairwise(expected))
    places = [place for segment in segments for place in segment.places]
    assert places == [Place(4, n, 2 * n - 1, 8) for n in (1, 2, 3, 4)]


def test_slots_have_norms_of_their_own():
    segments = plan_layers(
        PRE, 4, {"default": "layer", "final_norm": "rms", "norm_before": "dyt*2+rms"}
    )
    assert [len(segment.places) for segment in segments] == [2, 2]
    assert norms_by_layer(segments, "norm_before") == ["dyt", "dyt", "rms", "rms"]
    assert norms_by_layer(segments, "final_norm") == ["rms"] * 4


@pytest.mark.parametrize(
    ("slot", "norm", "message"),
    [
        ("default", ("rms",) * 3, "config.model.norm: 3 norms for 4 layers"),
        ("final_norm", "rms*5", r"config.model.final_norm: 'rms\*5' does not fit 4 layers"),
        ("default", "rms+layer", "does not fit 4 layers"),
        ("default", "rms*two+layer", "'two' in 'rms.two.layer' is not a number"),
    ],
)
def test_what_does_not_fit_is_told(slot, norm, message):
    with pytest.raises(UserError, match=message):
        plan_layers(PRE, 4, {"default": "layer", slot: norm})


def test_an_unknown_slot_is_told():
    with pytest.raises(UserError, match="unknown slot 'norm_befor'; did you mean 'norm_before'"):
        check_slots({"norm_befor": "rms"})


def mixed(place):
    return {"norm_on_stream": NormSlot()} if place.layer <= 2 else {"norm_before": NormSlot()}


def test_a_row_that_changes_with_depth_makes_segments():
    row = Arrangement(name="mixed", equation="f(x)", source="test", by_layer=mixed)
    first, second = plan_layers(row, 5, {"default": "layer"})
    assert [len(first.places), len(second.places)] == [2, 3]
    assert first.arrangement.norm_on_stream == NormSlot() == second.arrangement.norm_before
    assert first.arrangement.norm_before is second.arrangement.norm_on_stream is None
    assert second.places[0] == Place(5, 3, 5, 10)


def test_sublayers_are_counted_when_orders_differ():
    def order(place):
        return {"order": (("attention",),)} if place.layer == 1 else {}

    row = Arrangement(name="orders", equation="f(x)", source="test", by_layer=order)
    places = [p for s in plan_layers(row, 3, {"default": "layer"}) for p in s.places]
    assert [(p.sublayer, p.sublayers) for p in places] == [(1, 5), (2, 5), (4, 5)]


def test_a_row_at_a_sublayer():
    row = replace(PRE, by_sublayer={"attention": {"norm_before": None}})
    assert row.at("attention").norm_before is None
    assert row.at("feed_forward") is row


def test_constants_know_which_stack_they_are_in():
    """Wang et al. 2022, figure 2, of an encoder with 18 layers and a decoder with 6, by hand."""
    row = arrangements.get("deepnorm")
    encoder = Place(18, 1, 1, 36, "encoder", 6)
    decoder = Place(6, 1, 1, 12, "decoder", 18)
    beta = row.init.gains["fc1"]
    assert row.skip_scale(encoder) == pytest.approx(1.8661, abs=1e-4)
    assert beta(encoder) == pytest.approx(0.3776, abs=1e-4)
    assert row.skip_scale(decoder) == pytest.approx(2.0598, abs=1e-4)
    assert beta(decoder) == pytest.approx(0.3433, abs=1e-4)
