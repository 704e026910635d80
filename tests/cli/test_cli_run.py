"""A run from the command line, and everything that can be done with it afterwards."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from resnorm_jax.cli import train
from resnorm_jax.cli.main import main as resnorm
from resnorm_jax.data.series import bundled_folder
from resnorm_jax.training.phases import PHASES
from resnorm_jax.training.saved_run import load_trained

ROOT = Path(__file__).parents[2]
TEST_FILE = bundled_folder() / "UnitTest" / "UnitTest_TEST.ts"
SMOKE = f"--config={ROOT}/configs/series.py:smoke,seeds=2,dropout=0.2,batch_size=8"


pytestmark = pytest.mark.table  # one run, trained once for all; in .ci/run by name


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two seeds on the 8 fake devices, and what was printed."""
    workdir = tmp_path_factory.mktemp("run") / "a"
    done = subprocess.run(
        [sys.executable, "train.py", SMOKE, f"--workdir={workdir}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


def digest(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_line_one_says_backend_devices_and_versions(run):
    first, second = run[1].splitlines()[:2]
    assert first.startswith("cpu, 8 devices")
    assert "jax " in first
    assert second == "deterministic: yes"


def test_a_run_directory_holds_what_is_promised(run):
    workdir, text = run
    for name in ("config.json", "metrics.jsonl", "report.json", "curves.png", "confusion.png"):
        assert (workdir / name).stat().st_size > 0, name
    assert list(workdir.glob("tensorboard/seed_0/*tfevents*"))
    report = json.loads((workdir / "report.json").read_text())
    for name in ("accuracy", "macro_f1", "log_loss", "expected_calibration_error", "majority"):
        assert 0 <= report[name] < 5
    accuracies = [s["accuracy"] for s in report["seeds"]]
    assert report["accuracy"] == pytest.approx(np.mean(accuracies))
    assert report["summary"]["accuracy"]["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert len(set(report["params_sha256"])) == 2
    assert report["rows"] == sum(map(sum, report["seeds"][0]["confusion"])) == 22
    for shown in ("majority class", "seed 0", "seed 1", "mean", "report.json", "Parameters"):
        assert shown in text
    config = json.loads((workdir / "config.json").read_text())
    assert config["edges"] == report["padding"]["lengths"]
    assert sorted(report["phases"]) == sorted(PHASES)
    assert all(report["phases"][name] > 0 for name in ("data", "compile", "evaluation", "save"))
    assert report["train_seconds"] < sum(report["phases"].values())
    assert "Time of this sitting" in text
    assert config["runtime"]["devices"] == 8
    assert config["runtime"]["versions"]["jax"]
    assert config["runtime"]["deterministic"] == "yes"


def test_the_log_has_every_step_once(run):
    rows = [json.loads(line) for line in (run[0] / "metrics.jsonl").open()]
    seen = [(r["seed"], r["split"], r["step"]) for r in rows]
    assert len(seen) == len(set(seen))
    last = max(r["step"] for r in rows)
    assert {(s, "train", last) for s in (0, 1)} <= set(seen)


def test_the_same_command_again_scores_the_same_and_trains_nothing(run, capsys):
    workdir, _ = run
    before = json.loads((workdir / "report.json").read_text())
    log = (workdir / "metrics.jsonl").read_bytes()
    assert train.main(["train.py", SMOKE, f"--workdir={workdir}"]) == 0
    after = json.loads((workdir / "report.json").read_text())
    assert after["params_sha256"] == before["params_sha256"]
    assert after["accuracy"] == before["accuracy"]
    assert after["train_seconds"] == before["train_seconds"]
    assert (workdir / "metrics.jsonl").read_bytes() == log


def test_another_config_in_its_directory_is_refused_and_nothing_changes(run, capsys):
    workdir, _ = run
    before = digest(workdir)
    status = train.main(
        ["train.py", SMOKE.replace("dropout=0.2", "dropout=0.3"), f"--workdir={workdir}"]
    )
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert error.count("\n") == 0
    assert "config.model.dropout is 0.2, this one's 0.3" in error
    assert digest(workdir) == before


def test_evaluate_equals_the_report(run, tmp_path, capsys):
    workdir, _ = run
    report = json.loads((workdir / "report.json").read_text())
    out = tmp_path / "scores.json"
    assert resnorm(["evaluate", str(workdir), "--seed=1", f"--output={out}"]) == 0
    found = json.loads(out.read_text())
    for name in ("accuracy", "confusion", "macro_f1"):
        assert found[name] == report["seeds"][1][name]
    assert found["log_loss"] == pytest.approx(report["seeds"][1]["log_loss"], rel=1e-5)
    assert "majority class" in capsys.readouterr().out
    before = out.read_bytes()
    assert resnorm(["evaluate", str(workdir), f"--output={out}"]) == 2
    assert "--output: " in (error := capsys.readouterr().err)
    assert "exists; name a new file" in error
    assert out.read_bytes() == before


def test_a_seed_that_the_run_does_not_have_is_told(run, capsys):
    for arguments in (["evaluate", str(run[0])], ["predict", str(run[0]), str(TEST_FILE)]):
        assert resnorm([*arguments, "--seed=7"]) == 2
        error = capsys.readouterr().err.strip()
        assert "no last checkpoint of seed 7; it holds ['seed_0', 'seed_1']" in error
        assert "\n" not in error


def test_predict_writes_class_and_probability(run, tmp_path, capsys):
    workdir, _ = run
    table = tmp_path / "out.csv"
    assert resnorm(["predict", str(workdir), str(TEST_FILE), f"--output={table}"]) == 0
    rows = list(csv.DictReader(table.open()))
    assert [int(row["row"]) for row in rows] == list(range(1, 23))
    lines = tmp_path / "out.jsonl"
    assert resnorm(["predict", str(workdir), str(TEST_FILE), f"--output={lines}"]) == 0
    objects = [json.loads(line) for line in lines.open()]
    assert [o["class"] for o in objects] == [r["class"] for r in rows]
    for each in objects:
        assert sum(each["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert each["probability"] == max(each["probabilities"].values())
    report = json.loads((workdir / "report.json").read_text())
    classes = report["classes"]
    predicted = np.array(report["seeds"][0]["confusion"]).sum(0)
    assert [sum(r["class"] == c for r in rows) for c in classes] == predicted.tolist()
    before = table.read_bytes()
    assert resnorm(["predict", str(workdir), str(TEST_FILE), f"--output={table}"]) == 2
    assert "exists" in capsys.readouterr().err
    assert table.read_bytes() == before


def test_inputs_in_json_lines_give_the_same_as_the_series_file(run, tmp_path, capsys):
    workdir, _ = run
    from resnorm_jax.data.ts_format import read_ts

    read = read_ts(TEST_FILE)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"x": np.asarray(s).tolist()}) + "\n" for s in read.values))
    assert resnorm(["predict", str(workdir), str(path)]) == 0
    from_json = capsys.readouterr().out
    assert resnorm(["predict", str(workdir), str(TEST_FILE)]) == 0
    assert capsys.readouterr().out == from_json


def test_a_damaged_checkpoint_is_told(run, tmp_path, capsys):
    import shutil

    workdir = tmp_path / "copy"
    shutil.copytree(run[0], workdir)
    files = [p for p in workdir.glob("checkpoints/seed_0/last/*/state/**/d/*") if p.is_file()]
    data = bytearray(files[0].read_bytes())
    data[-1] ^= 1
    files[0].write_bytes(data)
    assert resnorm(["evaluate", str(workdir)]) == 2
    assert "damaged checkpoint" in capsys.readouterr().err


def test_a_row_longer_than_the_learned_positions_is_told(run, tmp_path, capsys):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"x": [[0.1]] * 25}) + "\n")
    assert resnorm(["predict", str(run[0]), str(path)]) == 2
    assert "row 1 has 25 positions, the model learned 24" in capsys.readouterr().err


def test_trained_models_can_be_loaded_from_python(run):
    trained = load_trained(run[0], seed=1)
    assert trained.step == 6
    assert trained.kind == "last"


def start(workdir: Path, *more: str) -> subprocess.Popen:
    config = (
        f"--config={ROOT}/configs/series.py:smoke,epochs=130,dropout=0.3,drop_path=0.1,"
        "checkpoint_every=60,log_every=7"
    )
    return subprocess.Popen(
        [sys.executable, "train.py", config, f"--workdir={workdir}", *more],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def kill_when(process: subprocess.Popen, log: Path, rows: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and log.read_bytes().count(b"\n") >= rows:
            break
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_and_started_again_a_run_ends_with_the_same_bits(tmp_path):
    whole = start(tmp_path / "whole")
    text, _ = whole.communicate(timeout=600)
    assert whole.returncode == 0, text
    parts = tmp_path / "parts"
    for rows in (12, 35):  # of 55: past the first, then past a later checkpoint
        process = start(parts)
        kill_when(process, parts / "metrics.jsonl", rows)
        assert process.returncode == -signal.SIGKILL
        assert not (parts / "report.json").exists()
    last = start(parts)
    text, _ = last.communicate(timeout=600)
    assert last.returncode == 0, text
    assert "resumed at step" in text
    reports = [json.loads((d / "report.json").read_text()) for d in (tmp_path / "whole", parts)]
    assert reports[0]["params_sha256"] == reports[1]["params_sha256"]
    logs = [(d / "metrics.jsonl").read_bytes() for d in (tmp_path / "whole", parts)]
    assert logs[0] == logs[1]
