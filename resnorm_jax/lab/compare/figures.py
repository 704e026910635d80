"""Figures of a grid: score against depth, loss against learning rate, loss over training."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.reporting.figures import new_figure

Row = Mapping[str, Any]
MARKS = "os^vD*Px"
SIZE = 9.0, 4.6  # inches


def style(index: int) -> dict[str, Any]:
    """Return color and mark of the n-th line: sixty look different."""
    from matplotlib import colormaps

    color = colormaps["tab20"](index % 20)
    return {"color": color, "marker": MARKS[index // 20 % len(MARKS)], "markersize": 4}


def _finish(axes: Any, lines: int, **labels: str) -> None:
    axes.set(**labels)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    columns = 1 + (lines - 1) // 22
    axes.legend(fontsize=7, ncols=columns, loc="center left", bbox_to_anchor=(1.0, 0.5))


def by_depth(summary: Sequence[Row], name: str, label: str, majority: float | None = None) -> Any:
    """Draw a number with its interval against depth, a line for each arrangement."""
    figure = new_figure(f"{label} by depth", *SIZE)
    if figure is None:
        return None
    axes, names = figure.subplots(), list(dict.fromkeys(row["arrangement"] for row in summary))
    for index, arrangement in enumerate(names):
        rows = sorted((r for r in summary if r["arrangement"] == arrangement), key=_depth)
        x, y = [row["depth"] for row in rows], [row[name][0] for row in rows]
        spread = [[max(0.0, m - a), max(0.0, b - m)] for m, a, b in (r[name] for r in rows)]
        bars = np.nan_to_num(np.array(spread).T)
        axes.errorbar(x, y, yerr=bars, label=arrangement, capsize=2, **style(index))
    if majority is not None:
        axes.axhline(majority, color="0.4", linestyle=":", label="majority class")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    _finish(axes, len(names) + 1, xlabel="layers", ylabel=label)
    return figure


def _depth(row: Row) -> int:
    return row["depth"]


def by_rate(summary: Sequence[Row], depth: int, entropy: float) -> Any:
    """Draw the final training loss against the learning rate at one depth."""
    figure = new_figure("loss by learning rate", *SIZE)
    if figure is None:
        return None
    axes, rows = figure.subplots(), [row for row in summary if row["depth"] == depth]
    for index, row in enumerate(rows):
        rates = {float(rate): loss for rate, loss in row["loss_by_rate"].items()}
        axes.plot(list(rates), list(rates.values()), label=row["arrangement"], **style(index))
    axes.axhline(entropy, color="0.4", linestyle=":", label="labels' entropy")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _finish(
        axes, len(rows) + 1, title=f"{depth} layers", xlabel="peak learning rate",
        ylabel="final training loss (nats)",
    )  # fmt: skip
    return figure


def curves(records: Iterable[Row], summary: Sequence[Row], depth: int, entropy: float) -> Any:
    """Draw the training loss over the steps at one depth, each arrangement at its best rate."""
    figure = new_figure("training loss", *SIZE)
    if figure is None:
        return None
    records, rows = list(records), [row for row in summary if row["depth"] == depth]
    axes = figure.subplots()
    for index, row in enumerate(rows):
        some = [
            r for r in records
            if (r["arrangement"], r["depth"]) == (row["arrangement"], depth)
            and r["learning_rate"] == row["learning_rate"]
        ]  # fmt: skip
        values = np.array([[np.nan if v is None else v for v in r["curve"]] for r in some])
        steps = np.linspace(0, some[0]["steps"], values.shape[1], endpoint=False)
        look = {**style(index), "marker": ""}
        axes.plot(steps, values.mean(0), label=row["arrangement"], **look)
    axes.axhline(entropy, color="0.4", linestyle=":", label="labels' entropy")
    axes.set_yscale("log")
    _finish(
        axes,
        len(rows) + 1,
        title=f"{depth} layers",
        xlabel="updates",
        ylabel="training loss (nats)",
    )
    return figure
