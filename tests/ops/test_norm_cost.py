"""What the compiled norms read, write and hold beside flax.linen's: free of a clock."""

import pytest
from tiers import every

from resnorm_jax.bench.memory import norm_cost
from resnorm_jax.bench.norm_speed import FLAX, SHAPES

CASES = [
    (kind, shape, dtype)
    for kind in ("layer", "rms")
    for shape in (*SHAPES, (64, 512), (16, 4096), (66, 1017))
    for dtype in ("float32", "bfloat16")
]


@pytest.mark.parametrize("case", every(CASES, [("layer", (32, 128, 64), "float32")]))
def test_no_more_bytes_and_no_more_memory_than_flax(case):
    programs = norm_cost(*case)["programs"]
    ours, theirs = programs["ours"], programs[FLAX]
    assert ours["bytes_accessed"] <= theirs["bytes_accessed"]
    assert ours["temporary_bytes"] <= theirs["temporary_bytes"]
