"""Collectives are read off a program's text, loops and branches included; formulas of a ring."""

import pytest

from resnorm_jax.scaling.collectives import Collective, collectives

TEXT = """\
HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %psum.1 = f32[1,1,32]{2,1,0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %out = (s32[], f32[4]) tuple(%i, %y)
}

%left (p: f32[8]) -> f32[8] {
  ROOT %g = f32[8]{0} all-gather(%p), replica_groups=[2,4]<=[8], dimensions={0}
}

%right (p: f32[8]) -> f32[8] {
  ROOT %c = f32[8]{0} copy(%p)
}

ENTRY %main.9 (a: f32[3,5], b: f32[5]) -> f32[3,5] {
  %w = (s32[], f32[4]) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %b1 = f32[8]{0} conditional(%i, %p, %p), branch_computations={%right, %left}
  %all-reduce = (f32[3,5]{1,0}, f32[], /*index=2*/bf16[7]{0}) all-reduce(%a, %b, %c), replica_groups={}, to_apply=%add, metadata={op_name="jit(f)/all-reduce(x)"}
  %rs = f32[2]{0} reduce-scatter(%a), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add
  %ags = (f32[2]{0}, f32[8]{0}) all-gather-start(%a), replica_groups={{0,1,2,3}}, dimensions={0}
  ROOT %agd = f32[8]{0} all-gather-done(%ags)
}
"""  # fmt: skip # noqa: E501


def test_loops_branches_tuples_and_groups():
    assert collectives(TEXT, 8) == [
        Collective("all-reduce", 32 * 4, 4, times=3),
        Collective("all-gather", 8 * 4, 4),
        Collective("all-reduce", (15 + 1) * 4 + 7 * 2, 8),
        Collective("reduce-scatter", 4 * 2 * 4, 4),
        Collective("all-gather", 8 * 4, 4),
    ]


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives("HloModule empty\n", 2)


@pytest.mark.parametrize(
    ("kind", "share", "hops"),
    [
        ("all-reduce", 2 * 7 / 8, 14),
        ("all-gather", 7 / 8, 7),
        ("reduce-scatter", 7 / 8, 7),
        ("collective-permute", 1, 1),
    ],
)
def test_what_a_ring_of_eight_sends(kind, share, hops):
    one = Collective(kind, 800, 8, times=2)
    assert one.sent == pytest.approx(2 * share * 800)
    assert one.seconds(1e3, 0.5) == pytest.approx(2 * share * 800 / 1e3 + 2 * hops * 0.5)


def test_one_device_sends_nothing():
    assert all(
        Collective(kind, 800, 1).seconds(1.0, 1.0) == 0
        for kind in ("all-reduce", "all-gather", "reduce-scatter", "collective-permute")
    )
