"""Out of memory: one line with the field to change, after a table of memory by part."""

import io
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from rich.console import Console

from resnorm_jax.cli import train
from resnorm_jax.training.memory import (
    OutOfMemoryError,
    is_out_of_memory,
    memory_by_part,
    memory_line,
    memory_told,
)

EXHAUSTED = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    made = tiny.config(ema=0.9, batch_size=16)
    run, state = tiny.run(made, tiny.dataset(), tmp_path_factory.mktemp("run"))
    run.console = Console(file=io.StringIO(), width=100)
    return made, run, state


@pytest.mark.parametrize(
    "error",
    [EXHAUSTED, pytest.param(MemoryError(), marks=pytest.mark.table)],
    ids=["device", "host"],
)
def test_it_becomes_one_line_and_a_table(parts, error):
    made, run, state = parts
    run.watchdog.doing("seed 0 was at step 3")
    with (
        pytest.raises(OutOfMemoryError) as found,
        memory_told(made, run, lambda: state),
    ):
        raise error
    told = str(found.value)
    assert told.startswith("out of memory while seed 0 was at step 3: about ")
    assert "\n" not in told
    assert "change config." in told
    table = run.console.file.getvalue()
    for name in ("parameters", "gradients", "optimizer state", "averages", "batch", "activations"):
        assert name in table


def test_other_errors_keep_their_traceback(parts):
    made, run, state = parts
    other = jax.errors.JaxRuntimeError("INTERNAL: a bug")
    assert not is_out_of_memory(other)
    with pytest.raises(jax.errors.JaxRuntimeError), memory_told(made, run, lambda: state):
        raise other


def test_parts_are_those_of_the_arrays(parts):
    _, run, state = parts
    batch = {k: np.asarray(v) for k, v in _batch(run).items()}
    found = memory_by_part(state, batch, run.parallel.options, 1)
    parameters = sum(a.nbytes for a in jax.tree.leaves(state.params))
    assert found["parameters"] == found["gradients"] == found["averages"] == parameters
    assert found["optimizer state"] == sum(a.nbytes for a in jax.tree.leaves(state.opt_state))
    assert found["batch"] == sum(a.nbytes for a in batch.values())
    half = memory_by_part(state, batch, run.parallel.options, 2)
    assert 0.4 < half["activations"] / found["activations"] < 0.6


def _batch(run):
    from resnorm_jax.data import TrainBatches

    return TrainBatches(run.dataset.train, 16, (8,), 0).batch_at(0)


def test_the_field_is_that_of_the_largest_part(parts):
    made = parts[0]
    line = memory_line(made, {"activations": 3 << 30, "parameters": 1 << 20}, "x", "gpu")
    assert "activations (3 GiB); change config.train.accumulate (now 1) or train.batch_size" in line
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=" in line
    line = memory_line(made, {"activations": 1, "optimizer state": 1 << 20}, "x", "cpu")
    assert "optimizer.algorithm (now adamw)" in line
    assert "XLA_PYTHON" not in line


@pytest.mark.table
def test_a_run_that_does_not_fit_ends_with_one_line(tmp_path, monkeypatch, capsys):
    def exhausted(self, state, batch):
        raise EXHAUSTED

    monkeypatch.setattr(tiny.DataParallel, "train", exhausted)
    small = ("width=8", "depth=1", "heads=2")
    configs = Path(__file__).parents[2] / "configs"
    arguments = [f"--config={configs}/digits.py", f"--workdir={tmp_path}/run", "--config.devices=1"]
    status = train.main(["train.py", *arguments, *(f"--config.model.{s}" for s in small)])
    printed = capsys.readouterr()
    assert status == 2
    assert printed.err.startswith("error: out of memory while seed 0 was at step 1: about ")
    assert printed.err.count("\n") == 1
    assert "activations" in printed.out
