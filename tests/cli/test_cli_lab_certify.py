"""``resnorm lab certify``: ranks, refuses, and is checked against a grid."""

import json

import pytest

from resnorm_jax.cli.main import main
from resnorm_jax.lab.certify.probe import RATES, STEPS

CONFIG = "--config=configs/digits.py:smoke,learning_rate=3e-3"


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid folder of four cells with invented losses: what is read, not what is trained."""
    folder = tmp_path_factory.mktemp("grid")
    (folder / "cells").mkdir()
    losses = {"none": 2.3, "pre_ln": 0.2, "post_ln": 0.4}
    (folder / "grid.json").write_text(json.dumps({"arrangements": list(losses), "depths": [24]}))
    for name, loss in losses.items():
        state = "not_trained" if loss > 2 else "ok"
        run = {"arrangement": name, "depth": 24, "final_loss": loss, "status": state}
        (folder / "cells" / f"{name}-24.json").write_text(json.dumps({"runs": [run]}))
    return folder


@pytest.mark.table
def test_a_deep_stack_without_skip_or_norm_will_not_train(grid, tmp_path, capsys):
    out = tmp_path / "out"
    names = "--arrangements=none,pre_ln,post_ln"
    arguments = [CONFIG, "--depth=24", names, f"--output={out}", f"--against={grid}"]
    assert main(["lab", "certify", *arguments]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("cpu, ")
    document = json.loads((out / "certify.json").read_text())
    found = {row["name"]: row for row in document["certificates"]}
    assert [row["rank"] for row in document["certificates"]] == [1, 2, 3]
    assert found["none"]["verdict"] == "will not train"
    assert found["pre_ln"]["verdict"] == "trains as is"
    assert found["pre_ln"]["score"] > 0.1 > abs(found["none"]["score"])
    assert found["none"]["gradient_ratio"] < 1e-3
    by_step = document["loss_by_step"]["pre_ln"]
    assert [len(curve) for curve in by_step] == [STEPS + 1] * len(RATES)
    checked = document["agreement"][0]
    assert checked["arrangements"] == 3
    assert checked["not_right"] >= 1
    assert "Spearman" in shown
    page = (out / "certify.html").read_text()
    assert "will not train" in page
    assert "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.table
@pytest.mark.parametrize("norm", ["batch", "power"])
def test_norms_whose_statistics_run_over_rows(norm, tmp_path, capsys):
    small = f"--config=configs/digits.py:smoke,norm={norm},depth=2,width=8,heads=2"
    assert main(["lab", "certify", small, "--arrangements=pre_ln", f"--output={tmp_path}/o"]) == 0
    (found,) = json.loads((tmp_path / "o" / "certify.json").read_text())["certificates"]
    assert found["name"] == "pre_ln"
    assert found["score"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([CONFIG, "--arrangements=pre"], "--arrangements: unknown name 'pre'"),
        ([CONFIG, "--depth=0"], "--depth: 0 must be over 0"),
        ([CONFIG, "--against=nowhere"], "nowhere: holds no grid"),
        (["--config=configs/digitz.py"], "did you mean 'configs/digits.py'?"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    assert main(["lab", "certify", *arguments, f"--output={tmp_path / 'new'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["lab", "certify", CONFIG, f"--output={tmp_path}"]) == 2
    assert "holds other files" in capsys.readouterr().err
