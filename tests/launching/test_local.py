"""Processes here, with tiny commands in the place of training: restarts, signals, statuses, output."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from resnorm_jax.launching import local
from resnorm_jax.launching.local import Local, cause, with_place
from resnorm_jax.launching.statuses import helps, shell_status, status_text

# Each process notes that it ran, and does what its number and attempt say.
CHILD = """
import pathlib, os, signal, sys, time
folder = pathlib.Path(sys.argv[1])
index = int(sys.argv[-1].removeprefix("--process-id="))
attempt = len(list(folder.glob(f"ran-{index}-*")))
(folder / f"ran-{index}-{attempt}").write_text(" ".join(sys.argv[2:]))
print("out of", index, flush=True)
print("error of", index, file=sys.stderr, flush=True)
"""


def launched(folder: Path, does: str, **how) -> tuple[int, list[str]]:
    lines: list[str] = []
    options = {"processes": 2, "grace": 10.0, **how}
    command = [sys.executable, "-c", CHILD + does, str(folder)]
    return Local(command, say=lines.append, **options).run(), lines


def runs(folder: Path, index: int) -> int:
    return len(list(folder.glob(f"ran-{index}-*")))


def test_all_are_done(tmp_path, capsys):
    assert launched(tmp_path, "") == (0, [])
    given = [(tmp_path / f"ran-{i}-0").read_text().split() for i in (0, 1)]
    assert [g[1:] for g in given] == [["--processes=2", f"--process-id={i}"] for i in (0, 1)]
    assert given[0][0] == given[1][0]
    assert given[0][0].startswith("--coordinator=127.0.0.1:")
    printed = capsys.readouterr()
    assert printed.out == "out of 0\n"
    assert sorted(printed.err.splitlines()) == ["[1] error of 1", "error of 0"]


def test_the_output_of_all_is_numbered(tmp_path, capsys):
    launched(tmp_path, "", everything=True)
    printed = capsys.readouterr()
    assert sorted(printed.out.splitlines()) == ["[0] out of 0", "[1] out of 1"]
    assert sorted(printed.err.splitlines()) == ["[0] error of 0", "[1] error of 1"]


def test_all_start_again_after_one_was_killed(tmp_path):
    dies = "if index == 1 and not attempt: os.kill(os.getpid(), signal.SIGKILL)\n"
    peer = "if index == 0 and not attempt: sys.exit(76)\n"
    status, lines = launched(tmp_path, dies + peer)
    assert status == 0
    assert (runs(tmp_path, 0), runs(tmp_path, 1)) == (2, 2)
    assert any("process 1 ended with 137 (it was killed)" in line for line in lines)
    assert any("process 0 ended with 76 (a peer was lost)" in line for line in lines)
    assert lines[-1] == "launch: starting all again, 1 of 3"
    ports = {(tmp_path / f"ran-0-{n}").read_text().split()[0] for n in (0, 1)}
    assert len(ports) == 2  # the old one may not be free yet


def test_what_is_frozen_is_killed_after_the_grace(tmp_path):
    does = "if attempt: sys.exit(0)\nif index == 0: sys.exit(76)\n"
    does += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.kill(os.getpid(), signal.SIGSTOP)\n"
    status, lines = launched(tmp_path, does, grace=0.3)
    assert status == 0
    assert lines[0] == "launch: killing 1: still there 0.3 s after another ended"


@pytest.mark.parametrize("final", [1, 2])
def test_what_a_restart_does_not_help_ends_it(tmp_path, final):
    status, _ = launched(tmp_path, f"sys.exit({final} if index else 76)\n")
    assert status == final
    assert runs(tmp_path, 0) == 1


def test_restarts_are_counted(tmp_path):
    status, lines = launched(tmp_path, "sys.exit(75)\n", restarts=2)
    assert status == 75
    assert runs(tmp_path, 0) == 3
    assert lines[-1] == "launch: not started again: 2 restarts are used up"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_go_on_and_end_it(tmp_path, number):
    """One signal each, though the terminal sends Ctrl-C to a whole group: children have their own."""
    wait = """
got = []
def note(number, frame):
    got.append(number)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, note)
(folder / f"ready-{index}").touch()
while not got:
    time.sleep(0.01)
time.sleep(0.2)
(folder / f"got-{index}").write_text(str(got))
sys.exit(128 + got[0])
"""
    parent = (
        "import sys\nfrom resnorm_jax.launching.local import Local\n"
        f"sys.exit(Local([sys.executable, '-c', {CHILD + wait!r}, {str(tmp_path)!r}], 2).run())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], start_new_session=True)
    while not all((tmp_path / f"ready-{i}").exists() for i in (0, 1)):
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert {(tmp_path / f"got-{i}").read_text() for i in (0, 1)} == {f"[{int(number)}]"}
    assert (runs(tmp_path, 0), runs(tmp_path, 1)) == (1, 1)


def test_a_signal_while_they_are_started_is_sent_once(tmp_path, monkeypatch):
    """It comes when both are there, and before all is ready here."""
    begun, real = [], threading.Thread

    def late(**how):
        begun.append(how)
        if len(begun) == 4:  # the last of two readers for each of two processes
            while not all((tmp_path / f"ready-{i}").exists() for i in (0, 1)):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            while not all((tmp_path / f"got-{i}").exists() for i in (0, 1)):
                time.sleep(0.01)  # two that wait to be delivered would be one
        return real(**how)

    wait = """
got = []
signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
(folder / f"ready-{index}").touch()
while not got:
    time.sleep(0.01)
(folder / f"got-{index}").touch()
time.sleep(0.5)
(folder / f"got-{index}").write_text(str(got))
sys.exit(128 + got[0])
"""
    monkeypatch.setattr(local, "threading", SimpleNamespace(Thread=late))
    status, _ = launched(tmp_path, wait)
    assert status == 128 + signal.SIGTERM
    assert {(tmp_path / f"got-{i}").read_text() for i in (0, 1)} == {"[15]"}


def test_causes():
    assert cause({0: 0, 1: 0}) == 0
    assert cause({0: 76, 1: 137}) == 137  # who was killed, not who lost it
    assert cause({0: 134, 1: 76, 2: 2}) == 2
    assert cause({0: 76, 1: 76}) == 76


def test_statuses():
    assert [shell_status(code) for code in (0, 2, -9)] == [0, 2, 137]
    assert [s for s in (0, 1, 2, 75, 76, 134, 137, 143) if helps(s)] == [75, 76, 134, 137, 143]
    assert status_text(139) == "139 (SIGSEGV)"
    assert status_text(3) == "3"
    assert with_place(["a"], 5, 2, 1)[-1] == "--process-id=1"
