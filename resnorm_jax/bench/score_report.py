"""The table of scores as Markdown, from the JSON alone."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

HEADER = ("data", "classifier", "official split", "resamples", "CPU seconds a fit")


def score_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each data set and classifier.

    Accuracies are in percent, mean and standard deviation; seconds, to train and to score, the median.
    """
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["data"], row["classifier"]), []).append(row)
    cells = [HEADER, ("---",) * len(HEADER)]
    for (data, name), some in found.items():
        spreads = [
            _spread([row["accuracy"] for row in some if row["split"] == split])
            for split in ("official", "resample")
        ]
        seconds = statistics.median(row["cpu_seconds"] for row in some)
        cells.append((data, name, *spreads, f"{seconds:.0f}"))
    return [f"| {' | '.join(line)} |" for line in cells]


def _spread(accuracies: Sequence[float]) -> str:
    """Return a mean and, of several, their standard deviation."""
    if not accuracies:
        return "-"
    mean = f"{100 * statistics.mean(accuracies):.2f}"
    if len(accuracies) < 2:
        return mean
    return f"{mean} (sd {100 * statistics.stdev(accuracies):.2f})"
