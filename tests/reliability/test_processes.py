"""Runs in processes of their own: killed, interrupted, two at once. A few by default; all are slow."""

import random

import pytest
from reliability import disk, kills, locks, runs, signals


@pytest.fixture(scope="module")
def server():
    with runs.Server() as made:
        yield made


def silent(items, label):
    return iter(items)


def test_a_run_that_is_killed_goes_on_to_the_same_end(server, tmp_path, monkeypatch):
    """Twice: in its first second, and in a save."""
    monkeypatch.setattr(kills, "KILLS_A_RUN", 2)
    monkeypatch.setattr(kills, "KINDS", ("save", "first second"))
    workdir = tmp_path / "undisturbed"
    ended = server.run(runs.arguments("short", workdir), tmp_path / "undisturbed.txt")
    assert ended.status == 0, ended.text
    known = runs.left_behind(workdir), ended.seconds
    one = kills.disturb(server, tmp_path / "run", ("short", 1), random.Random(0), known)
    assert one.ended == ""
    assert one.differ == []
    assert one.kinds


def test_two_processes_started_together(server, tmp_path):
    """One trains; the other says who holds the directory."""
    with runs.Server() as second:
        outcome, detail, _ = locks.together(server, second, tmp_path / "run")
    assert outcome == "right", detail


@pytest.mark.slow
@pytest.mark.parametrize("part", [kills, locks, signals, disk], ids=lambda p: p.__name__)
def test_all(part):
    found = part.measure(False, 12, silent)
    good = {"equal", "right", "exact", "kept", "room enough: equal"}
    assert set(found["outcomes"]) <= good, found
