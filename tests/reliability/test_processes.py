"""Runs in processes of their own: killed, interrupted, two at once."""

import os
import random
import shutil
import sys

import pytest
from reliability import disk, kills, locks, made, partition, processes, runs, signals
from reliability import late as late_program
from reliability.run_cases import call
from training.test_several_processes import Store

from resnorm_jax.training.checkpoint import CheckpointStore
from resnorm_jax.training.processes import Processes
from resnorm_jax.training.shared_store import SharedStore


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


def truncated(data):
    return data[: len(data) // 2]


def flipped(data):
    middle = len(data) // 2
    return (
        data[:middle] + bytes(byte ^ 1 for byte in data[middle : middle + 1]) + data[middle + 1 :]
    )


@pytest.mark.slow
def test_a_checkpoint_of_four_processes_with_any_file_damaged_is_found_by_one_and_by_two(tmp_path):
    """The run goes on from the one before, with the same end."""
    whole = processes.run("short", tmp_path / "run", 4, 1)
    newest = "checkpoints/seed_0/last/step_000000002"
    files = [p for p in sorted((tmp_path / "run" / newest).rglob("*")) if p.is_file()]
    assert len(files) > 3
    assert all(file.stat().st_size for file in files)
    for file in files:
        for damage in (truncated, flipped):
            copy = tmp_path / f"{damage.__name__}"
            shutil.copytree(tmp_path / "run", copy)
            hurt = copy / file.relative_to(tmp_path / "run")
            hurt.write_bytes(damage(hurt.read_bytes()))
            said = found_by_one_and_by_two(copy / "checkpoints/seed_0/last")
            assert file.name in said, (file, said)
            shutil.rmtree(copy)
    files[0].write_bytes(truncated(files[0].read_bytes()))
    again = processes.run("short", tmp_path / "run", 2, 2)
    assert "damaged checkpoint set aside" in (tmp_path / "run.0.txt").read_text()
    assert runs.differences(whole, again) == []


def found_by_one_and_by_two(directory) -> str:
    """Look for the newest sound checkpoint; return what one process says of the damaged one."""
    said, store = [], Store()
    alike = shutil.copytree(directory, directory.with_name("two"))
    two = [
        SharedStore(Processes(index, 2, store), CheckpointStore(alike, warn=lambda line: None))
        for index in range(2)
    ]
    like = CheckpointStore(directory).read(1, None)
    assert CheckpointStore(directory, warn=said.append).restore_latest(like)[0] == 1
    assert [each.restore_latest(like)[0] for each in two] == [1, 1]
    return said[0]


GLOO = 30  # seconds that Gloo waits for a process when devices are connected


def late(marker, seconds, modules="jit_over_devices"):
    """Return what has process 1 begin to compile a module so many seconds late, as `start` takes it."""
    command = [sys.executable, late_program.__file__, str(seconds), modules, str(marker)]
    return lambda index: command if index == 1 else ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "more"),
    [
        ("jit_over_devices", []),
        ("jit_over_devices+jit_whole", ["--config.parallel=sharded", "--config.mesh.fsdp=4"]),
    ],
    ids=["pmap", "sharded"],
)
def test_a_process_that_compiles_for_longer_than_gloo_waits_is_waited_for(tmp_path, modules, more):
    wanted = processes.run("short", tmp_path / "at_once", 2, 2, more=more)
    within = late(tmp_path / "marker", GLOO + 10, modules)
    found = processes.run("short", tmp_path / "late", 2, 2, more=more, within=within)
    assert runs.differences(wanted, found) == []
    assert set((tmp_path / "marker").read_text().split()) == set(modules.split("+"))


@pytest.mark.slow
def test_a_process_that_dies_while_it_compiles_is_named_by_the_one_that_waits(tmp_path):
    marker = tmp_path / "marker"
    group = processes.start("short", tmp_path / "run", 2, 2, within=late(marker, 300))
    while not marker.is_file() and group.wait(0.2) == [None, None]:
        pass
    group.wait(5)  # the other waits by now
    group.members[1].kill()
    status = group.wait(processes.LIMIT)[0]
    group.end()
    assert status == 76, group.text(0)
    assert "process 1" in group.text(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part", [kills, locks, signals, disk, processes, partition], ids=lambda p: p.__name__
)
def test_all(part):
    found = part.measure(False, 12, silent)
    good = {"equal", "right", "exact", "kept", "room enough: equal", "not possible here"}
    assert set(found["outcomes"]) <= good, found
