"""Processes that cannot begin together: each says why in one line, in time, and nothing is written."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reliability import runs

from resnorm_jax.launching.local import free_port

MEET, WAIT, SOON = (f"--start-timeout={seconds}" for seconds in (90, 30, 5))
OTHER = "process 1 has a config, data or code other than process 0: "
SAME = "--process-id: 1: another process of this run has that number; give each its own"
# Options and devices of each process; how each ends, and what it says first.
CASES = {
    "one is missing": ([(0, SOON)], [(76, "process 1 of 2 did not come to 127.0.0.1")]),
    "two are missing": (
        [(0, WAIT, "--processes=4"), (2, WAIT, "--processes=4")],
        [(76, "processes 1, 3 of 4 did not come to 127.0.0.1"), (76, "process 0")],
    ),
    "none is there": ([(1, SOON)], [(76, "process 0 does not answer at 127.0.0.1")]),
    "out of reach": (
        [(1, SOON, "--coordinator=10.255.255.1:9911")],
        [(76, "process 0 does not answer at 10.255.255.1:9911")],
    ),
    "no address": (
        [(0, "--coordinator=nowhere.invalid:9911")],
        [(2, "--coordinator: nowhere.invalid has no address")],
    ),
    "port in use": ([(0, SOON)], [(2, "--coordinator: port PORT of this host cannot be used")]),
    "out of range": ([(2, SOON)], [(2, "--process-id: 2 of 2 processes; give 0 to 1")]),
    "two that are 0": (
        [(0, WAIT), (0, WAIT)],
        [(76, "process 1 of 2 did not come"),
         (2, "--coordinator: port PORT of this host cannot be used")],
    ),
    "two that are 1": (
        [(0, WAIT, "--processes=3"), (1, WAIT, "--processes=3"), (1, WAIT, "--processes=3")],
        [(76, "process 2 of 3 did not come"), (2, SAME), (76, "process 0")],
    ),
    "more than there are": (
        [(0, WAIT), (2, WAIT, "--processes=3")],
        [(76, "process 1 of 2 did not come"), (2, "--process-id: 2: the coordinator expects fewer")],
    ),
    "another number of them": (
        [(0, MEET), (1, MEET, "--processes=3")],
        [(2, "process 1 ID ended: "),
         (2, "process 1 has options other than process 0: --processes is 3 here and 2 there")],
    ),
    "another config": (
        [(0, MEET), (1, MEET, "--config.train.steps=3")],
        [(2, "process 1 ID ended: "), (2, f"{OTHER}config.train.steps is 3 here and 2 there")],
    ),
    "other code": (
        [(0, MEET), (1, MEET, "copied")],
        [(2, "process 1 ID ended: "), (2, f"{OTHER}code.sha256 is ")],
    ),
    "other devices": (
        [(0, MEET), (1, MEET, "devices=3")],
        [(2, "config.devices: process 1 has 3 devices and process 0 has 1; give each"),
         (2, "config.devices: process 1 has 3 devices and process 0 has 1; give each")],
    ),
}  # fmt: skip


def command(workdir: Path, port: int, index: int, *more: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the variables of one process; options given twice count as given last."""
    root, devices, named = runs.ROOT, 1, {}
    options = [f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process-id={index}", *more]
    for option in ("--peer-timeout=5", *options):
        name, _, value = option.partition("=")
        if name == "copied":
            root = workdir.parent / "code"
        elif name == "devices":
            devices = int(value)
        else:
            named[name] = option
    arguments = runs.arguments("short", workdir, *named.values())[1:]
    path = os.pathsep.join([str(root), str(runs.HERE.parent)])
    variables = {**os.environ, **runs.environment(devices), "PYTHONPATH": path}
    return [sys.executable, str(root / "train.py"), *arguments], variables


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_processes_that_cannot_begin_say_why(case, tmp_path):
    given, wanted = CASES[case]
    port, workdir = free_port(), tmp_path / "run"
    if any("copied" in one for one in given):
        for name in ("resnorm_jax", "configs"):
            shutil.copytree(runs.ROOT / name, tmp_path / "code" / name)
        shutil.copy(runs.ROOT / "train.py", tmp_path / "code")
        with (tmp_path / "code/resnorm_jax/version.py").open("a") as file:
            file.write("# another line\n")
    taken = socket.create_server(("127.0.0.1", port)) if case == "port in use" else None
    with contextlib.ExitStack() as stack:
        if taken is not None:
            stack.enter_context(taken)
        members = []
        for index, *more in given:
            argv, variables = command(workdir, port, index, *more)
            members.append(
                subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    text=True, env=variables, cwd=tmp_path,
                )
            )  # fmt: skip
            stack.callback(members[-1].kill)
            if case.startswith("two"):
                arrived(members, port)
        ended = [(member.communicate(timeout=300)[1], member.returncode) for member in members]
    if case == "two that are 1":  # whichever came first gives way to the other
        ended[1:] = sorted(ended[1:], key=lambda one: one[1])
    for (status, line), (said, found) in zip(wanted, ended, strict=True):
        assert found == status, (said, found)
        own = [each for each in said.splitlines() if each.startswith("error: ")]
        text = re.escape(line).replace("PORT", str(port)).replace("ID", r"\(pid \d+ on \S+\)")
        assert re.match(f"error: {text}", own[0]), said
        assert len(own) == 1, said
        assert "Traceback" not in said
    assert not workdir.exists()


def arrived(members, port: int) -> None:
    """Wait until process 0 listens, and one that came after it has had time to speak to it."""
    while members[0].poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
