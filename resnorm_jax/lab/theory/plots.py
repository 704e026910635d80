"""One figure a claim: what was measured, with the band shaded."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BAND = "#2a7d46"
SHOWN_POINTS = 20  # with more, a line has no marks


def draw_panels(panels: Sequence[Mapping[str, Any]]) -> Any:
    """Return a matplotlib figure of the panels of a row, or None where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(7.2 * len(panels), 4.0), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, panel)
    return figure


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
