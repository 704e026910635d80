"""Norms measured by several processes: each compiles for itself, one at a time measures.

On an accelerator compiling takes most of the time, and one process leaves most of the host idle.
"""

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from resnorm_jax.bench.cases import NormCase
from resnorm_jax.bench.norm_table import norm_row
from resnorm_jax.bench.settings import Settings
from resnorm_jax.bench.timing import Budget


def norm_rows(
    cases: Sequence[NormCase], settings: Settings, copy: float, processes: int, until: float
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the norms' table as they come.

    Args:
      cases: what is measured.
      settings: how long each is.
      copy: as of `norm_row`.
      processes: how many there are.
      until: begin nothing after this value of `time.monotonic`.

    What a process failed at is left out: whoever asks measures it again, and sees why.
    """
    rows: Queue[str | None] = Queue()
    with TemporaryDirectory() as folder:
        told = {
            "budget": asdict(settings.norm_budget), "copy": copy, "until": until,
            "everything": settings.everything, "turn": f"{folder}/turn",
        }  # fmt: skip
        dealt = [cases[number::processes] for number in range(min(processes, len(cases)))]
        commands = [
            [
                sys.executable,
                "-m",
                __name__,
                json.dumps({**told, "cases": [asdict(c) for c in own]}),
            ]
            for own in dealt
        ]
        threads = [Thread(target=_follow, args=(command, rows)) for command in commands]
        for thread in threads:
            thread.start()
        ended = 0
        while ended < len(threads):
            line = rows.get()
            ended += line is None
            if line is not None:
                yield json.loads(line)


def _follow(command: Sequence[str], rows: "Queue[str | None]") -> None:
    """Put each line that a process prints into the queue, and None when it has ended."""
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout or ():
                if line.startswith("{"):
                    rows.put(line)
    finally:
        rows.put(None)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Wait until no other process measures, and have the others wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(text: str) -> None:
    """Measure what the text says; print a row as JSON in each line."""
    told = json.loads(text)
    for fields in told["cases"]:
        if time.monotonic() > told["until"]:
            return
        case = NormCase(**{**fields, "shape": tuple(fields["shape"])})
        row = norm_row(
            case, Budget(**told["budget"]), told["copy"], told["everything"],
            turn=_turn(Path(told["turn"])),
        )  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
