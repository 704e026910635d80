"""`rn.load_config`, `rn.train`, `rn.load_run`: a run without the command line."""

import json

import numpy as np
import pytest

import resnorm_jax as rn
from resnorm_jax.errors import UserError

pytestmark = pytest.mark.table  # one run, trained once for all; in .ci/run by name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A config file of random walks, trained for two steps in code, and its rows."""
    folder = tmp_path_factory.mktemp("door")
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 9, 32)
    y = np.arange(32) % 2
    x = (rng.normal(size=(32, 8, 3)) + y[:, None, None]).astype(np.float32)
    x *= (np.arange(8) < lengths[:, None])[..., None]
    np.savez(folder / "walks.npz", x=x, lengths=lengths, y=y)
    file = folder / "walks.py"
    file.write_text(
        "from resnorm_jax.config import experiment\n\n\n"
        'def get_config(argument: str = ""):\n'
        "    return experiment(\n"
        f'        argument, data={{"source": "arrays", "train": {str(folder / "walks.npz")!r}}},\n'
        '        model={"width": 8, "depth": 1, "heads": 2},\n'
        '        train={"steps": 2, "batch_size": 8}, devices=1,\n'
        "    )\n"
    )
    config = rn.load_config(f"{file}:seeds=1")
    report = rn.train(config, folder / "run")
    return folder, config, report, x, lengths


def test_a_config_is_checked_and_settings_count(made):
    folder, config, *_ = made
    assert (config.model.width, config.train.steps) == (8, 2)
    other = rn.load_config(f"{folder}/walks.py", {"model.width": 16, "seed": 3})
    assert (other.model.width, other.seed) == (16, 3)
    with pytest.raises(UserError, match=r"config\.model\.widht"):
        rn.load_config(f"{folder}/walks.py", {"model.widht": 16})


def test_training_prints_nothing_unless_asked_and_returns_the_report(made, capsys):
    folder, _, report, *_ = made
    assert capsys.readouterr().out == ""
    written = json.loads((folder / "run" / "report.json").read_text())
    assert {key: report[key] for key in ("accuracy", "params_sha256")} == {
        key: written[key] for key in ("accuracy", "params_sha256")
    }
    assert 0 <= report["accuracy"] <= 1


def test_a_run_predicts_arrays_and_lists_alike(made):
    folder, _, _, x, lengths = made
    run = rn.load_run(folder / "run")
    probabilities = run.predict_proba(x, lengths)
    assert probabilities.shape == (32, 2)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    ragged = [row[:n] for row, n in zip(x, lengths, strict=True)]
    np.testing.assert_array_equal(run.predict_proba(ragged), probabilities)
    assert run.predict(ragged).tolist() == [run.classes[i] for i in probabilities.argmax(-1)]


def test_it_equals_the_command(made, capsys):
    from resnorm_jax.cli.main import main

    folder, _, _, x, lengths = made
    assert main(["predict", str(folder / "run"), str(folder / "walks.npz")]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    told = [line.split(",")[1] for line in lines]
    assert told == rn.load_run(folder / "run").predict(x, lengths).tolist()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([np.ones((3, 3)), np.ones((3, 2))], "row 2: shape"),
        ([np.full((3, 3), np.nan)], "row 1: missing or infinite"),
        ([], "no rows"),
        (np.ones((2, 3, 3, 1, 1)), "row 1: shape"),
    ],
)
def test_a_wrong_row_is_named(made, rows, says):
    with pytest.raises(UserError, match=says):
        rn.load_run(made[0] / "run").predict(rows)


def test_lengths_must_fit(made):
    run = rn.load_run(made[0] / "run")
    with pytest.raises(UserError, match="row 2: length 9, of 8"):
        run.predict(made[3][:2], [3, 9])
    with pytest.raises(UserError, match="lengths: 1, of 2 rows"):
        run.predict(made[3][:2], [3])
