"""The formulas of a plan of shares, beside the compiled programs of the committed results."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from resnorm_jax import bench
from resnorm_jax.scaling.memory import Program
from resnorm_jax.scaling.mesh import Mesh, sharded_collectives, sharded_memory

DOCUMENT = json.loads((Path(bench.__file__).parent / "results" / "sharding_cpu.json").read_text())
ROWS = {row["key"]: row for row in DOCUMENT["sharding"]}
SIZE, WHOLE = DOCUMENT["settings"], ROWS["pmap 1"]
SHARDED = [key for key in ROWS if key.startswith("sharded")]


def step() -> SimpleNamespace:
    """What the formulas read of a step: how much it has, not what."""
    count = WHOLE["parameter_bytes"] // 4
    return SimpleNamespace(
        config=SimpleNamespace(
            model=SimpleNamespace(width=SIZE["width"], depth=SIZE["depth"], heads=SIZE["heads"]),
            train=SimpleNamespace(precision="float32"),
        ),
        options=SimpleNamespace(learned=None, names=("loss", "correct", "count")),
        state=SimpleNamespace(params=jax.ShapeDtypeStruct((count,), np.float32)),
        length=SIZE["length"],
    )


def plain(rows: float) -> Program:
    """`pmap`'s program for so many rows of a device; temporaries between 2 and 16 rows on a line."""
    few, many = (ROWS[key]["temporary_bytes"] for key in ("pmap 8", "pmap 1"))
    return Program(1, {
        "parameters": WHOLE["parameter_bytes"],
        "optimizer state": WHOLE["optimizer_bytes"],
        "averages": 0,
        "temporaries": round(few + (many - few) * (rows - 2) / 14),
    }, ())  # fmt: skip


def mesh_of(row: dict) -> tuple[Mesh, int]:
    mesh = row["mesh"]
    found = Mesh(row["devices"] // mesh["fsdp"] // mesh["tensor"], mesh["fsdp"], mesh["tensor"])
    return found, SIZE["batch"] // found.row_shares


@pytest.mark.parametrize("key", SHARDED)
def test_memory(key):
    """What belongs to parameters to a part in 10,000; with tensor the few that heads do not divide."""
    mesh, rows = mesh_of(ROWS[key])
    planned = sharded_memory(step(), plain(rows), mesh)
    near = 1e-4 if mesh.tensor == 1 else 0.011
    assert planned["parameters"] == pytest.approx(ROWS[key]["parameter_bytes"], rel=near)
    assert planned["optimizer state"] == pytest.approx(ROWS[key]["optimizer_bytes"], rel=near)
    over = planned["temporaries"] / ROWS[key]["temporary_bytes"]
    assert 1 <= over <= (1.16 if mesh.tensor == 1 else 1.27)  # as the README says


@pytest.mark.parametrize(
    ("mesh", "temporaries"),
    [
        (Mesh(8), 3_400),
        (Mesh(1, 2, 1), 3_000 + 200 + 400),  # half of the gradient; all parameters, gathered
        # By hand: 10 of 34 + 5 * 2 * 8 / 16 = 39 parts are whole, 29 are halved.
        (Mesh(4, 1, 2), 1_885 + 200),
        (Mesh(1, 2, 2), 1_885 + 100 + 200),
    ],
)
def test_temporaries_by_hand(mesh, temporaries):
    made = step()
    made.config.model = SimpleNamespace(width=16, depth=1, heads=2)
    made.state.params = jax.ShapeDtypeStruct((100,), np.float32)
    made.length = 8
    parts = {"parameters": 400, "optimizer state": 800, "averages": 0, "temporaries": 3_400}
    assert sharded_memory(made, Program(1, parts, ()), mesh)["temporaries"] == temporaries


@pytest.mark.parametrize("key", SHARDED)
def test_bytes_of_collectives(key):
    mesh, rows = mesh_of(ROWS[key])
    found = ROWS[key]["collectives"]
    planned = {}
    for one in sharded_collectives(step(), mesh, rows):
        kept = one.size // (mesh.fsdp if one.kind == "reduce-scatter" else 1)
        # The compiled program's text has the body of the loop over layers once.
        times = one.times // SIZE["depth"] if one.group == mesh.tensor > 1 < one.times else 1
        planned[one.kind] = planned.get(one.kind, 0) + kept * times
    assert set(found) == set(planned)
    for kind, size in planned.items():
        near = 0.01 if mesh.tensor == 1 else 0.012
        # Left out of the formulas: the bias inside of a layer, which fsdp does not divide.
        if kind == "all-reduce" and mesh.tensor > 1:
            size += 4 * SIZE["depth"] * SIZE["mlp_width"] // mesh.tensor
        assert found[kind]["bytes"] == pytest.approx(size, rel=near), kind
