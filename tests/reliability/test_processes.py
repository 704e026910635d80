"""Runs in processes of their own: killed, interrupted, two at once."""

import os
import random

import pytest
from reliability import disk, kills, locks, made, processes, runs, signals
from reliability.run_cases import call


@pytest.fixture(scope="module")
def server():
    with runs.Server() as made:
        yield made


def silent(items, label):
    return iter(items)


@pytest.mark.table
def test_a_run_that_is_killed_goes_on_to_the_same_end(server, tmp_path, monkeypatch):
    """In a save; the other moments are of the slow tier."""

    def undisturbed(workdir):
        ended = server.run(runs.arguments("short", workdir), tmp_path / "undisturbed.txt")
        assert ended.status == 0, ended.text

    monkeypatch.setattr(kills, "KILLS_A_RUN", 1)
    monkeypatch.setattr(kills, "KINDS", ("save",))
    known = runs.left_behind(made.kept("undisturbed", undisturbed)), 0.0
    one = kills.disturb(server, tmp_path / "run", ("short", 1), random.Random(0), known)
    assert one.ended == ""
    assert one.differ == []
    assert one.kinds


@pytest.mark.table
def test_two_processes_started_together(server, tmp_path):
    """One trains; the other, which may be this one, says who holds the directory."""
    argv = runs.arguments("short", tmp_path / "run")
    server.send(argv, tmp_path / "out.txt")
    status, _, err = call(argv)
    pids = server.started(), os.getpid()
    ended = server.wait()
    assert sorted((ended.status, status or 0)) == [0, 2], (ended, status, err)
    text, holder = (ended.text, pids[1]) if ended.status else (err, pids[0])
    assert locks.says_who(text, holder), text


@pytest.mark.slow
@pytest.mark.parametrize("part", [kills, locks, signals, disk, processes], ids=lambda p: p.__name__)
def test_all(part):
    found = part.measure(False, 12, silent)
    good = {"equal", "right", "exact", "kept", "room enough: equal"}
    assert set(found["outcomes"]) <= good, found
