"""SIGTERM, SIGINT and SIGHUP at every kind of place: the run saves, says so, ends, goes on exactly."""

import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability import runs

STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
SECONDS = 10.0  # on a machine that does other things
TRAINING = "resnorm_jax.training."


@dataclass(frozen=True)
class Place:
    """Where the signal comes: before the n-th call of a function.

    Attributes:
      saves: the step that must be saved afterwards; 0 if there is nothing to save.
    """

    name: str
    module: str
    attribute: str
    call: int
    saves: int
    more: tuple[str, ...] = ()
    signals: int = 1


SAVING = ("--config.train.checkpoint_every=4",)
PLACES = (
    Place("data preparation", TRAINING + "run_data", "load_dataset", 1, 0),
    Place("compilation", TRAINING + "devices", "train_step", 1, 0),
    Place("step", TRAINING + "devices", "DataParallel.train", 7, 6),
    Place("evaluation", TRAINING + "devices", "DataParallel.predict", 1, 5),
    Place("save", "orbax.checkpoint", "StandardCheckpointer.save", 2, 5, SAVING),
    Place("final scores", TRAINING + "experiment", "evaluate", 1, 18),
    Place("report", TRAINING + "report", "draw_curves", 1, 18),
    Place("step, two signals", TRAINING + "devices", "DataParallel.train", 7, 0, (), 2),
)


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Send each signal at all places (SIGTERM in a step only, if quick)."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has this process and its runs ignore it
    chosen = [(place, kind) for place in PLACES for kind in STATUS]
    if quick:
        chosen = [(PLACES[2], signal.SIGTERM)]
    folder = Path(tempfile.mkdtemp(prefix="resnorm-signals-"))
    found = {}
    with runs.Server() as server:
        known: dict[tuple[str, ...], dict[str, Any]] = {}
        for place, kind in each(chosen, "signals"):
            more = (*place.more, *(() if place.more else ("--config.train.checkpoint_every=100",)))
            if more not in known:
                workdir = folder / f"undisturbed_{len(known)}"
                argv = runs.arguments("best", workdir, *more)
                ended = server.run(argv, workdir.with_suffix(".txt"))
                assert ended.status == 0, ended.text
                known[more] = runs.left_behind(workdir)
            name = f"{kind.name} in {place.name}"
            found[name] = interrupt(server, folder / f"run_{len(found)}", place, kind, more, known)
    shutil.rmtree(folder)
    return {
        "outcomes": dict(Counter(one["outcome"] for one in found.values())),
        "by_place": found,
    }


def interrupt(server, workdir: Path, place: Place, kind: int, more, known) -> dict[str, Any]:
    """Interrupt a run at a place, start it again, and compare with the undisturbed one."""
    argv, out = runs.arguments("best", workdir, *more), workdir.with_suffix(".txt")
    marker = workdir.with_suffix(".here")
    pid = server.start(argv, out, 1, (place.module, place.attribute, place.call, str(marker)))
    while server.running() and not marker.exists():
        time.sleep(0.002)
    if not marker.exists():
        return {"outcome": "place not reached", "says": server.wait().text[-300:]}
    began = time.monotonic()
    for _ in range(place.signals):
        os.kill(pid, kind)
        time.sleep(0.1)
    marker.unlink()
    ended = server.wait()
    seconds = time.monotonic() - began
    saved = _saved(workdir)
    again = server.run(argv, out)
    differ = runs.differences(known[more], runs.left_behind(workdir))
    faults = {
        "not ended": ended.status == -signal.SIGKILL,
        "status": ended.status != STATUS[kind],
        "late": seconds > SECONDS,
        "not saved": saved < place.saves,
        "nothing said": len(ended.text.strip().splitlines()[-1:]) == 0 or not _says(ended.text),
        "traceback": "Traceback" in ended.text,
        "not resumed": again.status != 0,
        "different": bool(differ),
    }
    bad = [name for name, holds in faults.items() if holds]
    return {
        "outcome": ", ".join(bad) or "exact",
        "status": ended.status,
        "seconds": round(seconds, 2),
        "saved_step": saved,
        "says": (ended.text.strip().splitlines() or [""])[-1][-200:],
        "differ": differ[:5],
    }


def _says(text: str) -> bool:
    line = (text.strip().splitlines() or [""])[-1]
    words = [f"{kind.name}: " for kind in STATUS]
    return any(word in line for word in (*words, "ended without a save"))


def _saved(workdir: Path) -> int:
    steps = [p.name for p in workdir.glob("checkpoints/seed_0/last/step_*") if not p.suffix]
    return max((int(name.removeprefix("step_")) for name in steps), default=0)
