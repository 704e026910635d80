import json
import os
from pathlib import Path

import numpy as np
import pytest

from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import MetricsLog, write_json


def row(seed, step, split="train", **numbers):
    return {"seed": seed, "step": step, "split": split, **numbers}


def test_json_holds_plain_sorted_values(tmp_path):
    path = tmp_path / "new" / "report.json"
    write_json(
        path,
        {
            "b": np.float32(0.5),
            "a": [np.int64(3), np.array([[1.0, np.nan]]), (True, None)],
            "é": {1: float("inf"), "path": Path("run")},
            "f": np.float64("nan"),
        },
    )
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == {
        "a": [3, [[1.0, None]], [True, None]],
        "b": 0.5,
        "f": None,
        "é": {"1": None, "path": "run"},
    }
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_jax_values_are_written(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    write_json(tmp_path / "r.json", {"x": jnp.asarray(2.0), "y": jnp.arange(2)})
    assert json.loads((tmp_path / "r.json").read_text()) == {"x": 2.0, "y": [0, 1]}


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError, match="object"):
        write_json(path, {"new": object()})

    def killed(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(UserError, match=r"report\.json: cannot be written \(disk\)"):
        write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_reach_the_disk_before_the_rename(tmp_path, monkeypatch):
    calls, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda _: calls.append("fsync"))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_json(tmp_path / "report.json", {})
    assert calls == ["fsync", "replace"]


def test_rows_come_back_and_bytes_are_deterministic(tmp_path):
    first, second = MetricsLog(tmp_path / "a.jsonl"), MetricsLog(tmp_path / "b.jsonl")
    assert first.rows() == []
    first.append({"seed": 0, "step": 1, "split": "train", "loss": np.float32(0.5)})
    second.append({"loss": 0.5, "split": "train", "step": 1, "seed": 0})
    assert first.path.read_bytes() == second.path.read_bytes()
    first.append(row(0, 2, loss=float("nan")))
    assert first.rows() == [row(0, 1, loss=0.5), row(0, 2, loss=None)]
    with pytest.raises(ValueError, match="split"):
        first.append({"seed": 0, "step": 1})


def test_rows_are_on_disk_before_the_log_is_closed(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.append(row(0, 1))
    assert MetricsLog(log.path).rows() == [row(0, 1)]


def half_written(path):
    """A log whose writer was killed in the middle of its third row."""
    log = MetricsLog(path)
    for step in (1, 2, 3):
        log.append(row(0, step, name="é"))
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex("é".encode()) + 1])  # half of a character, too
    return MetricsLog(path)


def test_half_written_last_line_is_ignored_then_dropped(tmp_path):
    log = half_written(tmp_path / "m.jsonl")
    assert [r["step"] for r in log.rows()] == [1, 2]
    log.truncate(seed=0, step=100)
    assert log.path.read_bytes().count(b"\n") == 2
    assert log.path.read_bytes().endswith(b"}\n")


def test_append_after_a_kill_does_not_join_lines(tmp_path):
    log = half_written(tmp_path / "m.jsonl")
    log.append(row(0, 3))
    assert [r["step"] for r in log.rows()] == [1, 2, 3]


def test_last_line_whole_but_for_its_newline_is_kept(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.append(row(0, 1))
    log.path.write_bytes(log.path.read_bytes().rstrip(b"\n"))
    log = MetricsLog(log.path)
    log.append(row(0, 2))
    assert [r["step"] for r in log.rows()] == [1, 2]


def test_resume_leaves_no_duplicates(tmp_path):
    whole, resumed = MetricsLog(tmp_path / "a.jsonl"), MetricsLog(tmp_path / "b.jsonl")
    rows = [row(0, s, split) for s in range(1, 7) for split in ("train", "valid")]
    for each in rows:
        whole.append(each)
    for each in rows[:9]:  # killed at step 5; the checkpoint is of step 3
        resumed.append(each)
    resumed = MetricsLog(resumed.path)
    resumed.truncate(seed=0, step=3)
    for each in rows[6:]:
        resumed.append(each)
    assert resumed.path.read_bytes() == whole.path.read_bytes()


def test_truncate_leaves_other_seeds_and_a_missing_file(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    log.truncate(0, 0)
    assert not log.path.exists()
    for seed in (0, 1):
        for step in (1, 2):
            log.append(row(seed, step))
    log.truncate(seed=1, step=1)
    assert log.rows() == [row(0, 1), row(0, 2), row(1, 1)]
    assert list(tmp_path.iterdir()) == [log.path]


def test_broken_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"seed": 0, "split": "train", "step": 1}\n{"seed"\n{}\n')
    with pytest.raises(UserError, match=r"m\.jsonl:2"):
        MetricsLog(path).rows()


def test_a_marked_log_is_rewound_to_the_mark(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl")
    for step in (1, 2):
        for seed in (0, 1):
            log.append(row(seed, step))
    mark, before = log.mark(0), log.path.read_bytes()
    log.append(row(0, 2, "valid"))  # of the marked step, but written after the mark
    log.append(row(0, 3))
    log = MetricsLog(log.path)
    log.rewind(0, mark)
    assert log.path.read_bytes() == before
    assert log.mark(0) == mark
    log.append(row(0, 3))
    assert log.mark(0)["rows"] == 3


@pytest.mark.parametrize("change", ["a number", "a row less", "no file"])
def test_a_log_that_is_not_what_was_marked_is_refused(tmp_path, change):
    log = MetricsLog(tmp_path / "m.jsonl")
    for step in (1, 2):
        log.append(row(0, step, loss=0.25))
    mark, data = log.mark(0), log.path.read_bytes()
    if change == "no file":
        log.path.unlink()
    else:
        changed = {"a number": data.replace(b"0.25", b"0.35"), "a row less": data[: len(data) // 2]}
        log.path.write_bytes(changed[change])
    with pytest.raises(UserError, match=r"m\.jsonl: its first 2 rows of seed 0 are not those"):
        MetricsLog(log.path).rewind(0, mark)
