"""What a run and its inputs survive, as one table: ``python tests/reliability/table.py --help``."""

import argparse
import importlib
import inspect
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

PARTS = {
    "kills": "SIGKILL at a random moment, then restarts: equal to the undisturbed run, bit for bit",
    "flips": "a bit flipped, a file truncated or deleted: the same result or none",
    "signals": "SIGTERM, SIGINT and SIGHUP: saved, said, a status of its own, resumed exactly",
    "disk": "a full disk, a folder that cannot be written: one line, older steps intact, resumed",
    "locks": "two processes, one directory: one trains, the other says who holds it",
    "processes": "1, 2, 4 processes: equal; one killed or frozen: named, and gone on exactly",
    "shards": "parameters shared out over 1, 2, 4 processes: alike; a damaged part: found",
    "partition": "a network cut between processes: gone on, or each named; then exactly",
    "nonfinite": "NaN planted: the right layer and row named",
    "inputs": "malformed inputs: one clear line, status 2, nothing written",
    "cost": "time and bytes of a checkpoint; what the finite flag costs",
}
GOOD = (
    "right",
    "equal",
    "within 1e-05",
    "kept",
    "room enough: equal",
    "found",
    "fell back",
    "same",
    "exact",
    "not possible here",
)
SEED = 12
# For what is tried in this process; runs of their own have the usual code.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
T = TypeVar("T")


def main(argv: list[str]) -> int:
    """Measure the parts asked for; print the table; return 1 if anything was not as it should."""
    chosen = _arguments(argv)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("XLA_FLAGS", QUICK_TO_COMPILE)
    parts = {}
    for name in chosen.only:
        began = time.monotonic()
        measure = importlib.import_module(f"reliability.{name}").measure
        kept = Kept(chosen, name)
        more = {"keep": kept} if "keep" in inspect.signature(measure).parameters else {}
        parts[name] = measure(chosen.quick, chosen.seed, each, **more)
        parts[name]["minutes"] = round((time.monotonic() - began + kept.seconds) / 60, 2)
        if chosen.out:  # at once: what was measured is not lost with a later part
            _write(chosen.out, chosen, {name: parts[name]})
        kept.remove()
    _print(parts)
    bad = [n for p in parts.values() for n, count in p["outcomes"].items() if n not in GOOD]
    return int(bool(bad))


class Kept:
    """What was found of the cases of a long part, beside ``--out``: the same command goes on with it.

    Attributes:
      seconds: that the sittings before took.
    """

    def __init__(self, chosen: argparse.Namespace, part: str) -> None:
        self._path = chosen.out and chosen.out.with_name(f"{chosen.out.name}.{part}.partial")
        self._same = {"seed": chosen.seed, "quick": chosen.quick}
        self._began, self.seconds = time.monotonic(), 0.0
        self._found: dict[str, Any] = {}
        if self._path and self._path.exists():
            known = json.loads(self._path.read_text())
            if known["same"] == self._same:
                self._found, self.seconds = known["found"], known["seconds"]
                print(f"{part}: {len(self._found)} cases are known from {self._path}", flush=True)

    def __call__(self, name: str, make: Callable[[], T]) -> T:
        """Return what is known of a case, or make it, and write it down."""
        if name not in self._found:
            self._found[name] = make()
            if self._path:
                seconds = self.seconds + time.monotonic() - self._began
                values = {"same": self._same, "seconds": seconds, "found": self._found}
                self._path.write_text(json.dumps(values))
        return self._found[name]

    def remove(self) -> None:
        """Remove the file: all is in the table."""
        if self._path:
            self._path.unlink(missing_ok=True)


def each(items: Iterable[T], label: str) -> Iterator[T]:
    """Yield the items and show how many are done, how fast, and the time that is left."""
    from resnorm_jax.reporting.progress import Progress

    items = items if isinstance(items, Sized) else list(items)
    with Progress(label, len(items), rate=False) as progress:
        for count, item in enumerate(items, start=1):
            yield item
            progress.update(count)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="table.py", description=__doc__, allow_abbrev=False)
    about = "; ".join(f"{name}: {what}" for name, what in PARTS.items())
    parser.add_argument("--only", help=f"parts, by comma; all if left out. {about}")
    parser.add_argument("--quick", action="store_true", help="a few of each, in a minute or two")
    parser.add_argument("--seed", type=int, default=SEED, help="of moments and flips")
    parser.add_argument("--out", type=Path, help="JSON file; parts that it has stay, but for these")
    chosen = parser.parse_args(argv)
    chosen.only = chosen.only.split(",") if chosen.only else list(PARTS)
    for name in chosen.only:
        if name not in PARTS:
            parser.error(f"--only: no part {name!r}; choose from {', '.join(PARTS)}")
    return chosen


def _print(parts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "outcome", "count", "minutes", title="What a run survives")
    for name, part in parts.items():
        for outcome, count in sorted(part["outcomes"].items()):
            style = None if outcome in GOOD else "bold red"
            table.add_row(name, outcome, str(count), str(part["minutes"]), style=style)
    console = Console()
    console.print(table)
    for name, numbers in parts.get("cost", {}).get("by_model", {}).items():
        told = Table("figure", "value", title=f"What checkpoints cost: {name}")
        for figure, value in numbers.items():
            told.add_row(figure.replace("_", " "), f"{value:,.4g}")
        console.print(told)


def _write(path: Path, chosen: argparse.Namespace, parts: dict[str, Any]) -> None:
    """Add these parts to the file; what it had under ``before`` stays."""
    from resnorm_jax.reporting.environment import environment
    from resnorm_jax.reporting.files import write_json

    known = json.loads(path.read_text()) if path.exists() else {"before": {}, "parts": {}}
    where = {**environment(), "seed": chosen.seed, "quick": chosen.quick}
    for name, part in parts.items():
        known["parts"][name] = {"where": where, **part}
    write_json(path, known)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
