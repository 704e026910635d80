"""``resnorm lab compare``: the trainer's own runs, resumed, refused, reported."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from resnorm_jax.cli import lab_common
from resnorm_jax.cli.main import main
from resnorm_jax.config import experiment, from_dict
from resnorm_jax.errors import UserError
from resnorm_jax.lab.compare.cell import train_runs
from resnorm_jax.lab.compare.grid import make_grid, run_grid
from resnorm_jax.lab.compare.report import report
from resnorm_jax.training.experiment import run_experiment
from resnorm_jax.training.run_data import prepare_data

SECTIONS = {
    "data": {"source": "digits", "view": "rows"},
    "model": {"width": 8, "depth": 2, "heads": 2, "dropout": 0.1, "drop_path": 0.1},
    "optimizer": {"learning_rate": 3e-3, "warmup": 0.2, "weight_decay": 0.01},
    "train": {"batch_size": 32, "steps": 6, "log_every": 1, "buckets": 1, "scale": False},
    "devices": 1,
}


def config(**changes):
    sections = {
        name: dict(part) if isinstance(part, dict) else part for name, part in SECTIONS.items()
    }
    for name, change in changes.items():
        sections[name] = {**sections[name], **change} if isinstance(change, dict) else change
    return from_dict(experiment("", **sections).to_dict())


@pytest.fixture(scope="module")
def dataset():
    return prepare_data(config())


@pytest.mark.table
@pytest.mark.parametrize(
    "model",
    [
        {"arrangement": "pre_ln"},
        {"arrangement": "prores", "norm": "batch"},  # reads the step; has running statistics
    ],
    ids=lambda model: model["arrangement"],
)
def test_a_run_of_the_grid_is_the_trainers_run(model, dataset, tmp_path):
    chosen = config(model=model, seed=3)
    rates = (1e-3, chosen.optimizer.learning_rate)
    found = train_runs(chosen, dataset, (2, 3), rates, chosen.train.steps)
    quiet = Console(file=io.StringIO())
    want = run_experiment(chosen, tmp_path / "run", quiet)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    losses = [row["loss"] for row in rows if row["split"] == "train"]
    np.testing.assert_allclose(found.losses[1, 1], losses, rtol=1e-5)
    # The other seed and the other rate are other runs.
    assert abs(found.losses[0, 1] - losses).max() > 1e-2
    assert abs(found.losses[1, 0] - losses).max() > 1e-3
    hits = found.log_probs[1, 1].argmax(-1) == dataset.test.y
    np.testing.assert_allclose(hits.mean(), want["accuracy"], rtol=1e-12)


@pytest.mark.table
def test_a_grid_goes_on_where_it_was_stopped(dataset, tmp_path, monkeypatch):
    grid = make_grid(config(seeds=2), dataset, ("pre_ln", "rezero"), (1,), (1e-3, 1e-2), 3)
    quiet, folder = Console(file=io.StringIO()), tmp_path / "grid"
    first = run_grid(grid, dataset, folder, quiet)
    assert len(first) == 2 * 2 * 2
    kept = (folder / "cells" / "pre_ln-1.json").read_bytes()
    (folder / "cells" / "rezero-1.json").unlink()
    import resnorm_jax.lab.compare.grid as module

    trained = []
    real = module.train_cell

    def counted(grid, dataset, name, *rest):
        trained.append(name)
        return real(grid, dataset, name, *rest)

    monkeypatch.setattr(module, "train_cell", counted)
    again = run_grid(grid, dataset, folder, quiet)
    assert trained == ["rezero"]
    assert again == first  # to the bit
    assert (folder / "cells" / "pre_ln-1.json").read_bytes() == kept

    document = report(grid, dataset, again, folder, quiet)
    assert json.loads((folder / "compare.json").read_text())["programs"] == 2
    assert "best rate" in (folder / "compare.html").read_text()
    assert {row["arrangement"] for row in document["summary"]} == {"pre_ln", "rezero"}

    other = dataclasses.replace(grid, steps=4)
    with pytest.raises(UserError, match="holds another grid: its steps differ"):
        run_grid(other, dataset, folder, quiet)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--arrangements=pre_lm"],
            "--arrangements: unknown name 'pre_lm'; did you mean 'pre_ln'?",
        ),
        (["--depths=3,x"], "--depths: 'x' is not a whole number; write e.g. 3,24"),
        (["--depths=2.5"], "--depths: '2.5' is not a whole number"),
        (["--learning-rates=-1"], "--learning-rates: -1.0 must be over 0"),
        (["--config=configs/none.py"], "--config: no config file configs/none.py"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    assert main(["lab", "compare", *arguments, f"--output={tmp_path / 'new'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_of_other_things_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    arguments = ["lab", "compare", "--config=configs/digits.py:smoke", "--arrangements=pre_ln"]
    assert main([*arguments, f"--output={tmp_path}"]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_menus_of_arrangements():
    usual, every = (lab_common.arrangement_names(text) for text in ("usual", "all"))
    assert set(usual) < set(every)
    assert len(usual) >= 12
    assert lab_common.arrangement_names("peri_ln,sandwich_ln") == ("sandwich_ln",)
