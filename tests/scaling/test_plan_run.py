"""A plan: formulas against numbers by hand, compiled programs against it, and mistakes in a line."""

import json

import jax
import pytest
from tiers import every

from resnorm_jax.cli import plan_run as command
from resnorm_jax.config import override
from resnorm_jax.config_file import read_config
from resnorm_jax.errors import UserError
from resnorm_jax.interop.init_from import checked_config
from resnorm_jax.scaling import plan as plan_module
from resnorm_jax.scaling.collectives import Collective
from resnorm_jax.scaling.memory import PARTS, Program, program, tree_bytes
from resnorm_jax.scaling.mesh import Mesh, gradient_bytes, mesh_of
from resnorm_jax.scaling.plan import FORMULA, MEMORY, Asked, plan_run
from resnorm_jax.scaling.report import notes
from resnorm_jax.scaling.step import Step, step_of

SIZES = (4_000, 8_000, 0, 100, 20, 9_000, 5)  # of PARTS

SHARING = {"model__depth": "4", "model__layer_groups": "2"}


def made(**fields: str) -> Step:
    config = read_config("text:smoke")
    for path, value in fields.items():
        override(config, path.replace("__", "."), value)
    return step_of(checked_config(config.to_dict()))


@pytest.fixture(scope="module")
def step() -> Step:
    return made()


@pytest.fixture
def said(monkeypatch):
    """A compiler that says what it is told; what was compiled is noted."""
    asked = []

    def compiled(step, devices, rows):
        asked.append((devices, rows))
        memory = dict(zip(PARTS, SIZES, strict=True))
        return Program(devices, memory, (Collective("all-reduce", 1_000, devices),))

    monkeypatch.setattr(plan_module, "program", compiled)
    return asked


def test_one_program_of_two_devices_is_the_plan_of_a_thousand(step, said):
    asked = Asked((1, 2, 1024), rows=4, link=1e6, latency=1e-3, seconds=0.5)
    one, two, many = plan_run(step, asked)
    assert said == [(1, 4), (2, 4)]
    assert (one.link, one.step, one.collectives) == (0, 0.5, ())
    assert two.link == pytest.approx(1_000 / 1e6 + 2e-3)
    assert many.link == pytest.approx(2 * 1023 / 1024 * 1_000 / 1e6 + 2 * 1023e-3)
    assert many.examples_per_second == pytest.approx(4 * 1024 / (0.5 + many.link))
    assert many.memory == two.memory


def test_a_batch_is_divided_and_time_is_taken_to_be(step, said):
    assert step.config.train.batch_size == 32
    rows = plan_run(step, Asked((1, 8), seconds=0.8))
    assert [(r.rows, r.compute, r.step) for r in rows] == [(32, 0.8, None), (4, 0.1, None)]


def test_one_device_here_leaves_collectives_to_the_formula(step, said, monkeypatch):
    monkeypatch.setattr(plan_module.jax, "local_devices", lambda: ["one"])
    (row,) = plan_run(step, Asked((8,), seconds=1.0))
    assert said == [(1, 4)]
    assert row.basis == MEMORY
    size = tree_bytes(step.state.params) + 3 * 4  # loss, correct, count
    assert row.collectives == (Collective("all-reduce", size, 8),)
    told = " ".join(notes(step, Asked((8,)), [row], "gpu"))
    assert "formula without the statistics of batch norms" in told


def test_sharded_by_formula(step, said):
    asked = Asked((16,), "sharded", fsdp=4, tensor=2, rows=3, seconds=1.0)
    (row,) = plan_run(step, asked)
    whole = tree_bytes(step.state.params)
    model = step.config.model
    assert (row.mesh, row.basis, row.compute) == (Mesh(2, 4, 2), FORMULA, 0.5)
    assert row.collectives == (
        Collective("all-gather", whole // 2, 4),
        Collective("reduce-scatter", whole // 2, 4),
        Collective("all-reduce", whole // 8 + 12, 2),
        Collective("all-reduce", 3 * step.length * model.width * 4, 2, 4 * model.depth),
    )
    assert [row.memory[name] for name in PARTS[:3]] == [500, 1_000, 0]
    assert whole > 9_000  # more than all temporaries: what is left of them is 0
    assert row.memory["temporaries"] == -(-whole // 8) + whole // 2
    assert "config.parallel=sharded for this model" in " ".join(notes(step, asked, [row], "cpu"))


def test_what_is_frozen_does_not_travel():
    step = made(optimizer__frozen="embeddings")
    kept = tree_bytes(step.state.params["encoder"]) + tree_bytes(step.state.params["head"])
    assert kept <= gradient_bytes(step) < tree_bytes(step.state.params)


def test_layers_that_share_parameters_have_them_once(said):
    """Bytes by hand, of float32: 2 sets for 4 layers; Adam keeps two moments of what is trained."""
    fields = {**SHARING, "model__width": "8", "model__heads": "2", "model__mlp_width": "16"}
    attention, feed_forward, norms = 4 * (8 * 8 + 8), 2 * 8 * 16 + 16 + 8, 2 * 2 * 8
    sets = 2 * 4 * (attention + feed_forward + norms)
    step = made(**fields)
    params = step.state.params
    rest = sum(tree_bytes(tree) for name, tree in params.items() if name != "encoder")
    rest += tree_bytes(params["encoder"]["final_norm"])
    assert tree_bytes(params) == gradient_bytes(step) == sets + rest
    low = made(**fields, optimizer__lora_rank="2")  # of queries and values
    trained = 4 * 2 * 2 * 2 * (8 + 8) + tree_bytes(params["head"])
    assert gradient_bytes(low) == trained
    assert sum(a.size * 4 for a in jax.tree.leaves(low.state.opt_state) if a.ndim) == 2 * trained
    (row,) = plan_run(low, Asked((4,), "sharded", fsdp=2, rows=4, seconds=1.0))
    assert row.collectives == (
        Collective("all-gather", tree_bytes(low.state.params), 2),
        Collective("reduce-scatter", trained, 2),
        Collective("all-reduce", trained // 2 + 12, 2),
    )


def test_what_nobody_has_checked_is_said(step, said):
    few, many = Asked((2,), seconds=1.0), Asked((1024,), rows=1, seconds=1.0, link=1e9)
    assert "more than 8 devices" not in " ".join(notes(step, few, plan_run(step, few), "cpu"))
    told = notes(step, many, plan_run(step, many), "cpu")
    assert sum(line.startswith("Not checked:") for line in told) == 3


@pytest.mark.table
@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 1),
        ({"train__ema": "0.9", "train__accumulate": "2"}, 1),
        ({"model__norm": "batch"}, 20),
        (SHARING, 1),
        ({**SHARING, "optimizer__lora_rank": "2"}, 1),
    ],
    ids=["plain", "averages", "batch norm", "shared layers", "low rank on shared layers"],
)
def test_compiled_programs_are_as_planned(fields, count):
    step = made(**fields)
    (row,) = plan_run(step, Asked((8,), rows=4, seconds=1.0))
    real = program(step, 8, 4)
    assert row.memory == real.memory
    assert row.collectives == real.collectives
    assert sum(c.times for c in real.collectives) <= count
    largest = max(c.size for c in real.collectives)
    assert gradient_bytes(step) <= largest <= gradient_bytes(step) + 12
    state = sum(map(tree_bytes, (step.state.params, step.state.opt_state, step.state.ema)))
    assert tree_bytes(step.state) == state + real.memory["rest of the state"]
    assert jax.local_device_count() == 8


@pytest.mark.table
def test_the_command_prints_and_writes_a_plan(tmp_path, capsys):
    file = tmp_path / "plan.json"
    argv = ["text:smoke", "--devices=1,1024", "--rows=2", "--link=10", f"--output={file}"]
    assert command.main([*argv, "--config.model.width=8"]) == 0
    printed = capsys.readouterr().out
    assert "Not checked: every time of a link." in printed
    document = json.loads(file.read_text())
    assert document["config"]["model"]["width"] == 8
    assert [row["devices"] for row in document["rows"]] == [1, 1024]
    assert all(row["step"] >= row["compute"] > 0 for row in document["rows"])
    assert document["rows"][1]["memory"]["total"] > 0
    assert "versions" in document


def test_axes_that_do_not_divide():
    with pytest.raises(
        UserError, match=r"6 do not divide by config\.mesh\.fsdp=2 x config\.mesh\.tensor=2; try 8"
    ):
        mesh_of(6, 2, 2)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["digits"], "--devices"),
        (["digits", "--devices=2,x"], "give numbers from 1 to"),
        (["digits", "--devices=0"], "give numbers from 1 to"),
        (["digits", "--devices=2", "--link=0"], "--link: 0.0 must be over 0"),
        (["digits", "--devices=2", "--config.mesh.fsdp=2"], "config.mesh.fsdp: not read"),
        (["digits", "--devices=2", "--config.parallel=pjit"], "config.parallel: unknown value"),
        (["digits", "--devices=2", "--output=a.txt"], "write to a .json file"),
        (["digits", "--devices=2", "--config.model.width="], "no value; write"),
        (["digitz", "--devices=2"], "digitz"),
    ],
)
def test_mistakes_are_one_line(argv, said):
    with pytest.raises(UserError) as found:
        command.main(argv)
    assert said in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("number", every([3, 64], default=[3]))
def test_rows_that_do_not_divide(step, said, number):
    with pytest.raises(UserError, match="batch_size=32 does not divide by"):
        plan_run(step, Asked((1, number), seconds=1.0))
    assert said == []  # before anything is compiled
