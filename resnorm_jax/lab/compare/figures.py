"""Figures of a grid: score against depth, loss against learning rate, loss over training."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.reporting.figures import new_figure
from resnorm_jax.reporting.panels import WIDTH, legend_below, legend_height, looks

Row = Mapping[str, Any]
HEIGHT = 3.8  # inches, without the legend


def _figure(name: str, summary: Iterable[Row]) -> tuple[Any, dict[str, dict[str, Any]]]:
    """Return an empty figure (None without matplotlib), and how each arrangement's line looks."""
    names = list(dict.fromkeys(row["arrangement"] for row in summary))
    figure = new_figure(name, WIDTH, HEIGHT + legend_height([*names, ""]))
    return figure, looks(names) if figure is not None else {}


def _finish(figure: Any, axes: Any, **labels: str) -> None:
    axes.set(**labels)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    legend_below(figure, handles)


def by_depth(summary: Sequence[Row], name: str, label: str, majority: float | None = None) -> Any:
    """Draw a share with its interval, in percent, against depth, a line for each arrangement."""
    figure, styles = _figure(f"{label} by depth", summary)
    if figure is None:
        return None
    axes = figure.subplots()
    for arrangement, look in styles.items():
        rows = sorted((r for r in summary if r["arrangement"] == arrangement), key=_depth)
        x, y = [row["depth"] for row in rows], [100 * row[name][0] for row in rows]
        spread = [[max(0.0, m - a), max(0.0, b - m)] for m, a, b in (r[name] for r in rows)]
        bars = 100 * np.nan_to_num(np.array(spread).T)
        axes.errorbar(x, y, yerr=bars, label=arrangement, capsize=2, elinewidth=1, **look)
    if majority is not None:
        axes.axhline(100 * majority, color="0.4", linestyle=":", label="majority class")
    axes.set_xscale("log")
    depths = sorted({row["depth"] for row in summary})
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()
    _finish(figure, axes, xlabel="layers", ylabel=f"{label} (%)")
    return figure


def _depth(row: Row) -> int:
    return row["depth"]


def by_rate(summary: Sequence[Row], depth: int, entropy: float) -> Any:
    """Draw the final training loss against the learning rate at one depth."""
    figure, styles = _figure("loss by learning rate", summary)
    if figure is None:
        return None
    axes = figure.subplots()
    for row in summary:
        if row["depth"] != depth:
            continue
        rates = {float(rate): loss for rate, loss in row["loss_by_rate"].items()}
        name = row["arrangement"]
        axes.plot(list(rates), list(rates.values()), label=name, **styles[name])
    axes.axhline(entropy, color="0.4", linestyle=":", label="labels' entropy")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _finish(figure, axes, xlabel="peak learning rate", ylabel="final training loss (nats)")
    return figure


def curves(records: Iterable[Row], summary: Sequence[Row], depth: int, entropy: float) -> Any:
    """Draw the training loss over the steps at one depth, each arrangement at its best rate."""
    figure, styles = _figure("training loss", summary)
    if figure is None:
        return None
    records, rows = list(records), [row for row in summary if row["depth"] == depth]
    axes = figure.subplots()
    for row in rows:
        some = [
            r for r in records
            if (r["arrangement"], r["depth"]) == (row["arrangement"], depth)
            and r["learning_rate"] == row["learning_rate"]
        ]  # fmt: skip
        values = np.array([[np.nan if v is None else v for v in r["curve"]] for r in some])
        steps = np.linspace(0, some[0]["steps"], values.shape[1], endpoint=False)
        look = {**styles[row["arrangement"]], "marker": ""}
        axes.plot(steps, values.mean(0), label=row["arrangement"], **look)
    axes.axhline(entropy, color="0.4", linestyle=":", label="labels' entropy")
    axes.set_yscale("log")
    _finish(figure, axes, xlabel="updates", ylabel="training loss (nats)")
    return figure
