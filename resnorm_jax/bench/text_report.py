"""What `resnorm_jax.bench.text_scores` found, in words: from the JSON alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Row = Mapping[str, Any]


def speed_line(row: Row) -> str:
    """Return in a line what `resnorm_jax.bench.text_scores.beside_torch` found."""
    apart = np.abs(np.subtract(row["losses"], row["theirs"])).max()
    told = f"the first {len(row['losses'])} losses are within {apart:.1e} of torch's"
    if row["timed"]:
        ours, theirs = row["examples_per_second"], row["theirs_per_second"]
        told += f"; {ours:.1f} examples/s, torch {theirs:.1f} ({ours / theirs:.2f} times)"
    return f"fine-tuning, same weights and rows, no dropout: {told}"


def text_lines(rows: Sequence[Row]) -> list[str]:
    """Return the table as Markdown.

    Accuracies are in percent, mean and standard deviation over seeds; seconds are the median of a seed.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["classifier"], []).append(row)
    lines = ["| classifier | accuracy | seconds a seed |", "| --- | --- | --- |"]
    for name, some in found.items():
        values = [100 * row["accuracy"] for row in some]
        spread = f" (sd {np.std(values, ddof=1):.2f})" if len(values) > 1 else ""
        seconds = np.median([row["seconds"] for row in some])
        lines.append(f"| {name} | {np.mean(values):.2f}{spread} | {seconds:.0f} |")
    return lines
