"""Malformed inputs of every kind, all in one process: what came of each, counted by outcome."""

import importlib
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from reliability.case import Case
from reliability.run_cases import SECONDS, WALL_SECONDS, Result, run, warm

CORPORA = ("corpus_checkpoints", "corpus_generated", "corpus_data", "corpus_config")


def cases() -> list[Case]:
    """All cases of all corpora that are there; their names are unique."""
    found: list[Case] = []
    for name in CORPORA:
        if (Path(__file__).parent / f"{name}.py").exists():
            found += importlib.import_module(f"reliability.{name}").CASES
    twice = [name for name, count in Counter(c.name for c in found).items() if count > 1]
    assert not twice, f"case names that occur twice: {twice}"
    return found


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Run all cases, or every tenth; ``each`` shows how far."""
    warm()
    chosen = cases()[:: 10 if quick else 1]
    results = [_one(case) for case in each(chosen, "inputs")]
    return {
        "cases": len(results),
        "outcomes": dict(Counter(result.outcome for result in results)),
        "slowest_seconds": max(result.seconds for result in results),
        "most_megabytes": max(result.megabytes for result in results),
        "not_right": [vars(result) for result in results if result.outcome != "right"],
    }


def _one(case: Case) -> Result:
    directory = Path(tempfile.mkdtemp(prefix="resnorm-case-"))
    try:
        return run(case, directory, SECONDS, WALL_SECONDS)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
