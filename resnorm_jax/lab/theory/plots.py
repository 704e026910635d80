"""One figure a claim: what was measured, with the band shaded."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.reporting.figures import new_figure

BAND = "#2a7d46"
SHOWN_POINTS = 20  # with more, a line has no marks
WIDTH, HEIGHT = 7.2, 4.0  # inches of one panel


def draw_row(row: Mapping[str, Any]) -> Any:
    """Return a matplotlib figure of one row of the document, or None where matplotlib is missing.

    Where no panel can show the band, each number that it speaks of is drawn beside it on a strip.
    """
    panels = row["panels"]
    strips = [] if any(panel["band"] for panel in panels) else row["bounds"]
    count = len(panels) + bool(strips)
    figure = new_figure(row["id"], WIDTH * count, HEIGHT)
    if figure is None:
        return None
    parts = figure.subfigures(1, count, squeeze=False)[0]
    for part, panel in zip(parts, panels, strict=False):
        _draw(part.subplots(), panel)
    if strips:
        axes = parts[-1].subplots(len(strips), 1, squeeze=False)[:, 0]
        for each, bound in zip(axes, strips, strict=True):
            _strip(each, bound, row["numbers"][bound["number"]])
    return figure


def _strip(axes: Any, bound: Mapping[str, Any], value: Any) -> None:
    """Draw one number, or several, on a line, with the bound's limits shaded."""
    values = _array(value if isinstance(value, Sequence) else [value])
    # Infinite limits are None in the document: there the band goes to the edge.
    limits = [bound["low"], bound["high"]]
    known = [*values[np.isfinite(values)], *(limit for limit in limits if limit is not None)]
    room = 0.15 * (max(known) - min(known)) or 0.1 * abs(max(known)) or 1.0
    left, right = min(known) - room, max(known) + room
    low, high = (
        edge if limit is None else limit for limit, edge in zip(limits, (left, right), strict=True)
    )
    axes.axvspan(low, high, color=BAND, alpha=0.2, linewidth=0, label="band")
    axes.plot(values, np.zeros(len(values)), "o", label="measured")
    axes.set(xlim=(left, right), yticks=[], xlabel=bound["number"].replace("_", " "))
    axes.legend(fontsize=8)


def _draw(axes: Any, panel: Mapping[str, Any]) -> None:
    for line in panel["lines"]:
        marks = "o-" if len(line["x"]) <= SHOWN_POINTS else "-"
        x, y = _array(line["x"]), _array(line["y"])
        (drawn,) = axes.plot(x, y, marks, label=line["label"], markersize=4, linewidth=1.6)
        if line["low"] is not None:
            low, high = _array(line["low"]), _array(line["high"])
            axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)
    if panel["band"] is not None:
        x, low, high = (_array(part) for part in panel["band"])
        axes.fill_between(x, low, high, color=BAND, alpha=0.2, linewidth=0.8, label="band")
    if "x" in panel["log"]:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    if "y" in panel["log"]:
        axes.set_yscale("log")
    axes.set(xlabel=panel["x_label"], ylabel=panel["y_label"], title=panel["title"])
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if v is None else v for v in values], np.float64)
