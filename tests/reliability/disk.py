"""A disk that is full, at 20 sizes, and one that cannot be written: one line, and what was saved stays.

The disks are small file systems in memory, which only root may mount.
"""

import contextlib
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reliability import runs

SIZES = tuple(range(4, 44, 4)) + tuple(range(60, 360, 30))  # kB
PLENTY = "20m"


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Fill disks of 20 sizes (2 if quick), then write to one that is read-only."""
    folder = Path(tempfile.mkdtemp(prefix="resnorm-disk-"))
    with _disk(folder / "probe", PLENTY) as mounted:
        if not mounted:
            return {"outcomes": {"not tried: mounting is for root": 1}}
    found = {}
    with runs.Server() as server:
        workdir = folder / "undisturbed"
        server.run(runs.arguments("plain", workdir), folder / "undisturbed.txt")
        wanted = runs.left_behind(workdir)
        for size in each(SIZES[5::10] if quick else SIZES, "disks"):
            found[f"{size} kB"] = fill(server, folder / f"disk_{size}", size, wanted)
        found["read-only"] = _read_only(server, folder / "read_only")
    shutil.rmtree(folder)
    return {
        "outcomes": dict(Counter(one["outcome"] for one in found.values())),
        "by_size": found,
    }


def fill(server, disk: Path, size: int, wanted: dict[str, Any]) -> dict[str, Any]:
    """Train on a small disk until it is full, then give it room and start again."""
    argv, out = runs.arguments("plain", disk / "run"), disk.with_suffix(".txt")
    with _disk(disk, f"{size}k"):
        ended = server.run(argv, out)
        before = _steps(disk / "run")
        subprocess.run(["mount", "-o", f"remount,size={PLENTY}", str(disk)], check=True)
        again = server.run(argv, out)
        differ = runs.differences(wanted, runs.left_behind(disk / "run"))
    faults = {
        "traceback": "Traceback" in ended.text,
        "unclear": ended.status != 0 and not _one_line(ended.text, "space"),
        "status": ended.status not in (0, 2),
        "set aside": "set aside" in again.text,
        "not resumed": again.status != 0,
        "different": bool(differ),
    }
    bad = [name for name, holds in faults.items() if holds]
    return {
        "outcome": ", ".join(bad) or ("kept" if ended.status else "room enough: equal"),
        "status": ended.status,
        "lines": len(ended.text.splitlines()),
        "steps_kept": before,
        "says": _last(ended.text),
        "again": _last(again.text) if again.status else "",
        "differ": differ[:5],
    }


def _read_only(server, disk: Path) -> dict[str, Any]:
    with _disk(disk, PLENTY):
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ended = server.run(runs.arguments("plain", disk / "run"), disk.with_suffix(".txt"))
    right = ended.status == 2 and _one_line(ended.text, "[Rr]ead-only")
    bad = "traceback" if "Traceback" in ended.text else "unclear"
    return {
        "outcome": "kept" if right else bad,
        "status": ended.status,
        "says": _last(ended.text),
    }


def _one_line(text: str, word: str) -> bool:
    import re

    line = _last(text)
    return line.startswith("error: ") and re.search(word, line) is not None


def _last(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1][-300:]


def _steps(run: Path) -> list[int]:
    found = run.glob("checkpoints/seed_0/last/step_*")
    return sorted(int(p.name.removeprefix("step_")) for p in found if not p.suffix)


@contextlib.contextmanager
def _disk(path: Path, size: str) -> Iterator[bool]:
    """A file system of this size; False where it may not be mounted."""
    path.mkdir(parents=True)
    made = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    mounted = subprocess.run(made, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)
