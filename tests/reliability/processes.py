"""Runs of several processes: the same numbers for any number; one killed or frozen; what the others do.

The processes stand on this machine and speak over the loopback. A fixed seed draws whom it hits, how,
and when. ``python tests/reliability/table.py --only=processes``.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reliability import runs

PEER_TIMEOUT = 10
START_TIMEOUT = 240
LIMIT = PEER_TIMEOUT + 15  # seconds within which every survivor ends, as the docs say
COME = 45  # seconds to come together where one may be hit before it has
MOMENTS = 20
ENDS = (76, -signal.SIGABRT)
COMPILED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
ALIKE = {  # what is compared between 1, 2 and 4 processes: text, series, images
    "text": "",
    "series": "digits:smoke",
    "images": "digits:smoke,view=image,kernel=none",
}
LONG = 500  # seconds that a run may take on a busy machine


@dataclass
class Group:
    """The processes of one run, and where each writes what it says."""

    members: list[subprocess.Popen]
    said: list[Path]

    def wait(self, seconds: float) -> list[int | None]:
        """Return the statuses of all after at most so many seconds; None of one that goes on."""
        until = time.monotonic() + seconds
        for member in self.members:
            try:
                member.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        return [member.poll() for member in self.members]

    def end(self) -> None:
        """Kill those that go on."""
        for member in self.members:
            if member.poll() is None:
                member.kill()
                member.wait()

    def text(self, index: int) -> str:
        """Return what a process said."""
        return self.said[index].read_text(errors="replace")


def start(
    preset: str,
    workdir: Path,
    count: int,
    devices: int,
    *more: str,
    config: str = "",
    host: str = "127.0.0.1",
    within: Callable[[int], Sequence[str]] = lambda index: (),
    start_timeout: int = START_TIMEOUT,
) -> Group:
    """Start the processes of a run, ``devices`` fake devices each.

    Args:
      preset: of config_tiny.py, unless there is another ``config``.
      workdir: of the run.
      count: of processes.
      devices: of each.
      more: arguments.
      config: what follows ``--config=``.
      host: of process 0, for all.
      within: what each process' command is started with.
      start_timeout: seconds until all have to be there.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = runs.environment(devices)
    env = {**os.environ, **known, "XLA_FLAGS": f"{known['XLA_FLAGS']} {COMPILED}"}
    members, said = [], []
    for index in range(count):
        argv = runs.arguments(preset, workdir, *more)[1:]
        if config:
            argv[0] = f"--config={config}"
        if count > 1:
            argv += [
                f"--coordinator={host}:{port}",
                f"--processes={count}",
                f"--process-id={index}",
                f"--peer-timeout={PEER_TIMEOUT}",
                f"--start-timeout={start_timeout}",
            ]
        said.append(workdir.parent / f"{workdir.name}.{index}.txt")
        with said[-1].open("ab") as file:
            members.append(
                subprocess.Popen(
                    [*within(index), sys.executable, str(runs.ROOT / "train.py"), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    cwd=runs.ROOT,
                    env=env,
                )
            )
    return Group(members, said)


def run(
    preset: str, workdir: Path, count: int, devices: int, more: Sequence[str] = (), **how: Any
) -> dict[str, Any]:
    """Run to the end; return what `runs.left_behind` finds, without what tells of processes."""
    group = start(preset, workdir, count, devices, *more, **how)
    statuses = group.wait(LONG)
    group.end()
    assert statuses == [0] * count, (statuses, [group.text(i)[-2000:] for i in range(count)])
    return left_behind(workdir)


def left_behind(workdir: Path) -> dict[str, Any]:
    """Return what a run leaves, but for the number of restarts and processes."""
    found = runs.left_behind(workdir)
    found.pop("config.json", None)
    found["report.json"].pop("changes", None)
    return found


def disturbed(workdir: Path, victim: int, how: str, moment: float) -> dict[str, Any]:
    """Kill or freeze one of two processes after so many seconds; return what came of it.

    Where it is hit before the two have come together, the other ends by ``--start-timeout``.
    """
    group = start("plain", workdir, 2, 2, start_timeout=COME)
    group.wait(moment)
    number = signal.SIGKILL if how == "killed" else signal.SIGSTOP
    if group.members[victim].poll() is None:
        group.members[victim].send_signal(number)
    began = time.monotonic()
    other = group.members[1 - victim]
    group_ended = _status_of(other, COME + LIMIT)
    waited = time.monotonic() - began
    text = group.text(1 - victim)
    group.end()
    return {
        "victim": victim,
        "how": how,
        "moment": round(moment, 1),
        "status": group_ended,
        "waited": round(waited, 1),
        "named": f"process {victim}" in text,
        "together": "(--start-timeout)" not in text,
    }


def _status_of(member: subprocess.Popen, seconds: float) -> int | None:
    try:
        return member.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def outcome(found: dict[str, Any], differ: list[str]) -> str:
    """Say in a word how it went."""
    if found["status"] is None or found["waited"] > (LIMIT if found["together"] else COME + 5):
        return "hung"
    if found["status"] == 0:
        return "equal" if not differ else "differs"  # it had ended already
    if found["status"] not in ENDS or not found["named"]:
        return f"status {found['status']}, named: {found['named']}"
    return "equal" if not differ else "differs"


def measure(quick: bool, seed: int, each, keep=lambda name, make: make()) -> dict[str, Any]:
    """Compare 1, 2 and 4 processes on four devices; then kill or freeze one, 20 times (2 if quick)."""
    folder = Path(tempfile.mkdtemp(prefix="resnorm-processes-"))
    alike: dict[str, list[str]] = {}
    for kind in each(list(ALIKE), "1, 2 and 4 processes"):
        alike |= keep(kind, partial(compared, folder, kind))
    one = run("plain", folder / "undisturbed", 1, 4)
    run("plain", folder / "compiled", 2, 2)
    began = time.monotonic()
    run("plain", folder / "again", 2, 2)
    seconds = time.monotonic() - began
    found = []
    for number, victim, how, share in each(drawn(MOMENTS, seed)[: 2 if quick else None], "killed"):
        place = folder / f"run_{number}"

        def tried(place=place, victim=victim, how=how, moment=share * seconds) -> dict[str, Any]:
            told = disturbed(place, victim, how, moment)
            differ = runs.differences(one, run("plain", place, 2, 2))
            return told | {"differ": differ, "outcome": outcome(told, differ)}

        found.append(keep(f"moment {number}", tried))
    shutil.rmtree(folder)
    outcomes = Counter(each_["outcome"] for each_ in found)
    outcomes.update("equal" if not differ else "differs" for differ in alike.values())
    return {
        "outcomes": dict(outcomes),
        "processes": alike,
        "peer_timeout": PEER_TIMEOUT,
        "longest_wait": max((c["waited"] for c in found if c["together"]), default=None),
        "start_timeout": COME,
        "cases": found,
    }


def compared(folder: Path, kind: str) -> dict[str, list[str]]:
    """Return what differs between one process and several on as many devices."""
    wanted = run("plain", folder / f"{kind}_1", 1, 4, config=ALIKE[kind])
    found = {}
    for count in (2, 4):
        made = run("plain", folder / f"{kind}_{count}", count, 4 // count, config=ALIKE[kind])
        found[f"{kind}, {count} processes"] = runs.differences(wanted, made)
    return found


def drawn(moments: int, seed: int) -> list[tuple[int, int, str, float]]:
    """Return by number whom it hits, how, and at which share of a run's time."""
    rand = random.Random(seed)
    return [
        (number, rand.randrange(2), rand.choice(["killed", "frozen"]), rand.uniform(0.15, 1.0))
        for number in range(moments)
    ]
