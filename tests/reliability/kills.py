"""SIGKILL at random moments: what is there after the restarts equals the undisturbed run, bit for bit.

Runs are disturbed several times, each time at a moment of another kind, and then left alone. A fixed
seed draws the kinds and the moments.
"""

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reliability import runs

SETUPS = (("plain", 1), ("best", 4), ("epoch", 1), ("plain", 4), ("best", 1), ("seeds", 4))
KINDS = ("anywhere", "save", "first second", "claim", "save", "end", "imports")
KILLS, KILLS_A_RUN = 100, 4


@dataclass
class Disturbed:
    """A run that was killed, and how its result differs from the undisturbed one's."""

    preset: str
    devices: int
    kinds: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    ended: str = ""
    differ: list[str] = field(default_factory=list)


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Kill until there are 100 kills (4 if quick)."""
    rand, done = random.Random(seed), 0
    wanted = 4 if quick else KILLS
    disturbed: list[Disturbed] = []
    folder = Path(tempfile.mkdtemp(prefix="resnorm-kills-"))
    with runs.Server() as server:
        known: dict[tuple[str, int], tuple[dict[str, Any], float]] = {}
        count = each(range(wanted), "kills")
        next(count, None)
        while done < wanted:
            setup = SETUPS[len(disturbed) % len(SETUPS)]
            if setup not in known:
                known[setup] = _undisturbed(server, folder, *setup)
            one = disturb(server, folder / f"run_{len(disturbed)}", setup, rand, known[setup], done)
            disturbed.append(one)
            done += len(one.kinds)
            for _ in one.kinds:
                next(count, None)
    shutil.rmtree(folder)
    return _summary(disturbed)


def disturb(server, workdir: Path, setup, rand, known, done: int = 0) -> Disturbed:
    """Kill a run up to four times, let it end, and compare it with the undisturbed one."""
    wanted, usual = known
    one = Disturbed(*setup)
    argv, out = runs.arguments(setup[0], workdir), workdir.with_suffix(".txt")
    for number in range(KILLS_A_RUN):
        kind = KINDS[(done + number) % len(KINDS)]
        began = time.monotonic()
        status = _killed(server, argv, out, setup[1], kind, rand, usual)
        if status != -signal.SIGKILL:  # it ended before
            break
        one.kinds.append(kind)
        one.seconds.append(round(time.monotonic() - began, 3))
    ended = server.run(argv, out, setup[1])
    if ended.status:
        one.ended = f"status {ended.status}: {ended.text[-300:]}"
    one.differ = runs.differences(wanted, runs.left_behind(workdir))
    return one


def _undisturbed(server, folder: Path, preset: str, devices: int) -> tuple[dict[str, Any], float]:
    """Return what an undisturbed run leaves behind, and how long it takes once compiled."""
    workdir = folder / f"undisturbed_{preset}_{devices}"
    argv, out = runs.arguments(preset, workdir), workdir.with_suffix(".txt")
    for _ in range(2):  # the first one compiles
        shutil.rmtree(workdir, ignore_errors=True)
        ended = server.run(argv, out, devices)
        assert ended.status == 0, ended.text
    return runs.left_behind(workdir), ended.seconds


def _killed(server, argv, out: Path, devices: int, kind: str, rand, usual: float) -> int:
    """Start a run, kill it at a moment of this kind; return its status."""
    if kind == "imports":  # as a user starts it; the server has imported all
        child = runs.process(argv, out, devices)
        time.sleep(rand.uniform(0, 1))
        child.kill()
        return child.wait()
    before = set(_partials(argv))
    pid = server.start(argv, out, devices)
    wait, more = {
        "anywhere": (lambda: True, rand.uniform(0, usual)),
        "first second": (lambda: True, rand.uniform(0, 1)),
        "claim": (lambda: any(_workdir(argv).glob("*config.json*")), rand.uniform(0, 0.02)),
        "save": (lambda: set(_partials(argv)) - before, rand.uniform(0, 0.1)),
        "end": (lambda: any(_workdir(argv).glob("*report.json*")), rand.uniform(0, 0.5)),
    }[kind]
    while server.running() and not wait():
        time.sleep(0.001)
    time.sleep(more)
    if server.running():
        os.kill(pid, signal.SIGKILL)
    return server.wait().status


def _workdir(argv: list[str]) -> Path:
    return next(Path(a.partition("=")[2]) for a in argv if a.startswith("--workdir="))


def _partials(argv: list[str]) -> list[Path]:
    return list(_workdir(argv).glob("checkpoints/*/*/*.partial*"))


def _summary(disturbed: list[Disturbed]) -> dict[str, Any]:
    outcomes: Counter[str] = Counter()
    for one in disturbed:
        bad = "different" if one.differ else "equal"
        outcomes["not restarted" if one.ended else bad] += len(one.kinds)
    return {
        "outcomes": dict(outcomes),
        "kills_by_moment": dict(Counter(kind for one in disturbed for kind in one.kinds)),
        "runs": len(disturbed),
        "setups": [f"{preset}, {devices} devices" for preset, devices in SETUPS],
        "not_equal": [vars(one) for one in disturbed if one.differ or one.ended],
    }
