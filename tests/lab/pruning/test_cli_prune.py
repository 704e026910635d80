"""``resnorm lab prune`` from end to end."""

import json

import numpy as np
import pytest

from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.lab.pruning.measure import choosing_rows
from resnorm_jax.training.run_data import prepare_data
from resnorm_jax.training.saved_run import load_trained


@pytest.fixture(scope="module")
def pruned(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned") / "out"
    assert resnorm(["lab", "prune", str(tiny_run), "--keep=1,0.6,0.3", f"--output={folder}"]) == 0
    return folder, json.loads((folder / "prune.json").read_text())


@pytest.mark.table
def test_the_report_holds_every_method_and_the_trivial_rule(pruned, tiny_run):
    _, report = pruned
    scored = json.loads((tiny_run / "report.json").read_text())
    assert report["whole"]["accuracy"] == pytest.approx(scored["accuracy"])
    assert report["majority"] == pytest.approx(scored["majority"])
    assert (report["choosing"], report["test_rows"]) == ("validation", scored["rows"])
    by_layers = report["methods"]["layers"]
    assert [p["keep"] for p in by_layers["points"]] == pytest.approx([1, 2 / 3, 1 / 3])
    assert [len(p["removed"]) for p in by_layers["points"]] == [0, 1, 2]
    assert [p["layer"] for p in by_layers["one_removed"]] == [1, 2, 3]
    # The first layer to go is the one that costs least on the rows that choices are made on.
    costs = [p["choosing_log_loss"] for p in by_layers["one_removed"]]
    assert by_layers["points"][1]["removed"] == [1 + int(np.argmin(costs))]
    assert [p["keep"] for p in report["methods"]["magnitude"]["points"]] == [1, 0.6, 0.3]
    for name in ("layers", "magnitude"):
        first = report["methods"][name]["points"][0]
        assert (first["size_kept"], first["accuracy"]) == (1, report["whole"]["accuracy"])
    (rounded,) = report["methods"]["int8"]["points"]
    assert 0.25 < rounded["size_kept"] < 0.6  # a tiny model has many scales
    assert abs(rounded["log_loss"] - report["whole"]["log_loss"]) < 0.05


@pytest.mark.table
def test_a_pruned_score_is_that_of_weights_pruned_by_hand(pruned, tiny_run):
    _, report = pruned
    trained = load_trained(tiny_run)
    rows = prepare_data(trained.config).test

    def collect(tree, found):
        for name, value in tree.items():
            if isinstance(value, dict):
                collect(value, found)
            elif name == "kernel":
                found.append(np.asarray(value))
        return found

    weights = np.concatenate([w.ravel() for w in collect(trained.params, [])])
    threshold = np.sort(np.abs(weights))[weights.size - round(0.3 * weights.size)]

    def cut(tree):
        return {
            name: cut(value)
            if isinstance(value, dict)
            else np.where(np.abs(value) >= threshold, value, 0)
            if name == "kernel"
            else value
            for name, value in tree.items()
        }

    trained.variables = {**trained.variables, "params": cut(trained.params)}
    right = trained.log_probs(rows).argmax(1) == rows.y
    point = report["methods"]["magnitude"]["points"][-1]
    assert point["accuracy"] == pytest.approx(right.mean())
    zeros = (np.abs(weights) < threshold).sum()
    assert point["size_kept"] == pytest.approx(1 - zeros / report["parameters"])


@pytest.mark.table
def test_layers_are_chosen_on_rows_that_are_not_scored(tiny_run):
    dataset = prepare_data(load_trained(tiny_run).config)
    name, rows = choosing_rows(dataset, 50, 0)
    assert (name, len(rows)) == ("validation", 50)
    assert not {x.tobytes() for x in rows.x} & {x.tobytes() for x in dataset.test.x}
    name, rows = choosing_rows(dataset.replace(valid=None), 10**6, 0)
    assert (name, len(rows)) == ("training", len(dataset.train))


@pytest.mark.table
def test_the_page_needs_no_network_and_nothing_is_overwritten(pruned, tiny_run, capsys):
    folder = pruned[0]
    page = (folder / "prune.html").read_text()
    assert "http" not in page.split("</style>")[1].replace("data:image", "")
    for shown in ("Han et al. 2015", "One layer removed", "Majority class", "data:image/svg+xml"):
        assert shown in page
    before = (folder / "prune.json").read_bytes()
    capsys.readouterr()
    assert resnorm(["lab", "prune", str(tiny_run), f"--output={folder}"]) == 2
    assert "exists; name a new folder" in capsys.readouterr().err
    assert (folder / "prune.json").read_bytes() == before


@pytest.mark.table
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--keep=1,1.2", "--keep: '1.2'; give shares from 0 to 1"),
        ("--keep=half", "--keep: 'half'; give shares from 0 to 1"),
        ("--keep=nan", "--keep: 'nan'; give shares from 0 to 1"),
        ("--only=layer", "--only: unknown"),
        ("--order=gredy", "--order: unknown"),
        ("--rows=0", "--rows: 0 must be over 0"),
    ],
)
def test_mistakes_are_one_line(tiny_run, tmp_path, capsys, flag, message):
    out = tmp_path / "out"
    assert resnorm(["lab", "prune", str(tiny_run), flag, f"--output={out}"]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not out.exists()
