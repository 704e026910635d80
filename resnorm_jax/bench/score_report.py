"""The table of scores as Markdown, from the JSON alone."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

HEADER = ("data", "classifier", "official split", "resamples")


def score_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each data set and classifier: accuracy in percent, its mean and deviation."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in rows:
        by_split = found.setdefault((row["data"], row["classifier"]), {})
        by_split.setdefault(row["split"], []).append(row["accuracy"])
    cells = [HEADER, ("---",) * len(HEADER)]
    for (data, name), by_split in found.items():
        spreads = (_spread(by_split.get(split, ())) for split in ("official", "resample"))
        cells.append((data, name, *spreads))
    return [f"| {' | '.join(line)} |" for line in cells]


def _spread(accuracies: Sequence[float]) -> str:
    """Return a mean and, of several, their standard deviation."""
    if not accuracies:
        return "-"
    mean = f"{100 * statistics.mean(accuracies):.2f}"
    if len(accuracies) < 2:
        return mean
    return f"{mean} (sd {100 * statistics.stdev(accuracies):.2f})"
