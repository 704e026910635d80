"""Two processes on one directory, started together; and locks whose holder is dead or stopped."""

import json
import os
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from reliability import runs


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Start two processes 50 times (once if quick), then try a dead and a stopped holder."""
    folder = Path(tempfile.mkdtemp(prefix="resnorm-locks-"))
    outcomes, details, apart = Counter(), [], []
    with runs.Server() as first, runs.Server() as second:
        first.run(runs.arguments("short", folder / "warm"), folder / "warm.txt")
        for number in each(range(1 if quick else 50), "locks"):
            outcome, detail, gap = together(first, second, folder / f"run_{number}")
            outcomes[outcome] += 1
            apart.append(gap)
            details += [detail] if outcome != "right" else []
        for name, signal_ in (("dead", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
            outcome, detail = after(first, second, folder / name, signal_)
            outcomes[outcome] += 1
            details += [f"{name} holder: {detail}"] if outcome != "right" else []
    shutil.rmtree(folder)
    return {
        "outcomes": dict(outcomes),
        "most_milliseconds_apart": round(1000 * max(apart), 3),
        "not_right": details[:5],
    }


def together(first, second, workdir: Path) -> tuple[str, str, float]:
    """Start two processes at once; return outcome, what they said, seconds between the starts."""
    argv = runs.arguments("short", workdir)
    outs = [workdir.with_suffix(f".{name}.txt") for name in ("first", "second")]
    first.send(argv, outs[0])
    began = time.monotonic()
    second.send(argv, outs[1])
    gap = time.monotonic() - began
    pids = [first.started(), second.started()]
    ended = [first.wait(), second.wait()]
    statuses = [one.status for one in ended]
    text = f"statuses {statuses}: {[one.text[-200:] for one in ended]}"
    if sorted(statuses) != [0, 2]:
        twice = " (rows twice)" if _rows_twice(workdir) else ""
        return ("both trained" + twice if statuses == [0, 0] else "neither or odd"), text, gap
    loser = statuses.index(2)
    return ("right" if says_who(ended[loser].text, pids[1 - loser]) else "unclear"), text, gap


def after(first, second, workdir: Path, how: int) -> tuple[str, str]:
    """Kill or stop a run once it holds the directory; only the dead one gives it up."""
    argv, out = runs.arguments("plain", workdir), workdir.with_suffix(".txt")
    pid = first.start(argv, out)
    while first.running() and not (workdir / "metrics.jsonl").exists():
        time.sleep(0.005)
    os.kill(pid, how)
    ended = second.run(argv, workdir.with_suffix(".second.txt"))
    if how == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    first_status = first.wait().status
    text = f"statuses {first_status}, {ended.status}: {ended.text[-200:]}"
    if how == signal.SIGKILL:
        return ("right" if ended.status == 0 else "not given up"), text
    right = ended.status == 2 and first_status == 0 and says_who(ended.text, pid)
    return ("right" if right else "both trained" if ended.status == 0 else "unclear"), text


def says_who(text: str, pid: int) -> bool:
    """Whether the last line is an error that names this host and the process that holds a run."""
    line = text.strip().splitlines()[-1]
    return line.startswith("error: ") and str(pid) in line and socket.gethostname() in line


def _rows_twice(workdir: Path) -> bool:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    counted = Counter((row["seed"], row["step"], row["split"]) for row in rows)
    return max(counted.values()) > 1
