"""`resnorm lab article`: the quick run writes both files; mistakes end with status 2."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnorm_jax.article import SWITCHES
from resnorm_jax.cli import lab_article
from resnorm_jax.cli.main import main
from resnorm_jax.lab.article import report
from resnorm_jax.lab.article.claims import CLAIMS
from resnorm_jax.lab.article.listings import LEVELS, PRINTED_LOSSES, worked
from resnorm_jax.lab.article.sections import PARTS
from resnorm_jax.lab.article.settings import QUICK


@pytest.mark.parametrize("name", ["report.html", "report.json"])
def test_an_existing_report_is_left_alone(tmp_path, name, capsys):
    (tmp_path / name).write_text("mine")
    assert main(["lab", "article", f"--output={tmp_path}", "--quick"]) == 2
    assert "exists; name a new folder" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_one_seed_is_no_band(tmp_path, capsys):
    assert main(["lab", "article", f"--output={tmp_path / 'new'}", "--seeds=1"]) == 2
    assert "--seeds: 1" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_missing_plotting_package_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(lab_article, "find_spec", lambda name: None)
    assert main(["lab", "article", f"--output={tmp_path / 'new'}", "--quick"]) == 2
    assert "pip install 'resnorm_jax[plots]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


LABELS = tuple(switch.label for switch in SWITCHES)


def made_up():
    """What the experiments return, in their shapes, with numbers at which every claim holds."""
    found = {part.key: {"numbers": {"majority": 0.1}} for part in PARTS}
    for claim in CLAIMS:
        for check in (*claim.rule.within, *claim.rule.holds):
            step = {">": 1e-3, "<": -1e-3}.get(check.sign, 0)
            found[claim.part]["numbers"][check.number] = check.bound + step
    found["worked"] |= {"rows": worked(None)["rows"]}
    found["listing"] |= {"losses": [[2, 1]] * 2, "accuracy": [[0.1, 0.5]] * 2, "params": object()}
    reading = {"band": np.sort(np.random.default_rng(0).random((5, 10)), axis=0).tolist()}
    found["seeds"] |= {
        "levels": LEVELS,
        "article": PRINTED_LOSSES,
        "readings": {"rows_apart": reading},
    }
    found["depth"] |= {
        "profiles": [
            {"start": "x", "network": label, "depth": 3, "median": [1e-30, 1, 2]}
            for label in LABELS
        ],
        "trained": [
            {"network": label, "depth": d, "best": 0.5, "lost": [[True, False]]}
            for label in LABELS
            for d in (2, 3)
        ],
    }
    drifts = {"drift_mean": [0.1, 0.2], "drift_variance": [0.1, 0.2]}
    found["speed"]["numbers"]["target_loss"] = 0.5
    found["speed"]["rows"] = [
        {"network": label, "rate": 1e-3, "every": 2, "loss": [[2, 1, 0.4]] * 2, **drifts}
        for label in LABELS
    ]
    scores = {"mean": 0.5, "sd": 0.1}
    for part, key, names in (
        ("kinds", "kind", ("a", "b")), ("data", "data", ("text",)), ("sequence", "task", ("copy",)),
    ):  # fmt: skip
        found[part]["rows"] = [
            {key: name, "network": label, **scores} for name in names for label in LABELS
        ]
    found["data"]["majority"] = {"text": 0.2}
    found["sequence"]["chance"] = 0.125
    found["outlook"] |= {
        "pruned": [(1.0, 0.9), (0.1, 0.2)], "rounded": [(8, 0.9), (2, 0.1)],
        "attention": [np.full((3, 3), 1 / 3).tolist()] * 2, "writes": [0.4, 0.6],
    }  # fmt: skip
    return found


def check_files(folder):
    numbers = json.loads((folder / "report.json").read_text())
    assert [row["id"] for row in numbers["claims"]] == [claim.id for claim in CLAIMS]
    assert set(numbers["results"]) == {part.key for part in PARTS}
    page = (folder / "report.html").read_text()
    assert page.count("<figure>") == sum(len(part.drawings) for part in PARTS)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    for words in ("残差连接", "层归一化", "as printed", "worked example"):
        assert words in page, words
    return numbers, page


@pytest.mark.table
def test_page_and_numbers_of_made_up_findings(tmp_path):
    rows = report.write(tmp_path, made_up(), {"seconds": 1.0})
    assert {row["id"]: row["kind"] for row in rows} == {claim.id: "good" for claim in CLAIMS}
    numbers, page = check_files(tmp_path)
    assert numbers["seconds"] == 1.0
    assert "params" not in numbers["results"]["listing"]
    assert page.count('class="verdict good"') == 2 * len(CLAIMS)


def test_a_verdict_follows_the_numbers(tmp_path):
    found = made_up()
    found["outlook"]["numbers"]["lost_by_60_percent_pruned"] = 0.3
    found["sequence"]["numbers"]["least_gain"] = float("nan")
    rows = {row["id"]: row["verdict"] for row in report.judged(found)}
    assert rows["C8"] == "holds within: rounding, not pruning"
    assert rows["C7"] == "does not hold"
    assert rows["C1"] == "holds"


def traced_only(function, **options):
    """In place of `jax.jit`: trace for shapes and types, compile nothing, return ones."""

    def run(*arguments):
        shapes = jax.eval_shape(function, *arguments)
        return jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), shapes)

    return run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.filterwarnings("ignore:Data has no positive values")  # what is traced gives zeros
def test_every_experiment_fits_the_report(tmp_path, monkeypatch):
    """The programs are traced, not compiled: what they return has the shapes that are reported."""
    monkeypatch.setattr(jax, "jit", traced_only)
    found = report.run(QUICK)
    assert len(np.array(found["depth"]["profiles"])) == 2 * 4 * len(QUICK.depths)
    assert np.shape(found["seeds"]["readings"]["rows_apart"]["losses"]) == (QUICK.seeds, 10)
    assert np.array(found["outlook"]["attention"]).ndim == 3
    assert found["outlook"]["numbers"]["attention_sums_to_one_within"] < 1e-5
    report.write(tmp_path, found, {})
    check_files(tmp_path)


@pytest.mark.slow
def test_the_quick_run_writes_page_and_numbers(tmp_path, capsys):
    assert main(["lab", "article", f"--output={tmp_path}", "--quick"]) == 0
    check_files(tmp_path)
    shown = capsys.readouterr().out
    assert "report.html" in shown
    assert "100%" in shown
