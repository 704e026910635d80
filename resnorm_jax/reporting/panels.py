"""Panels of lines beside each other: one subplot for each kind of line, one color for each thing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnorm_jax.reporting.figures import new_figure

COLUMNS = 3


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
      thing: whose it is; decides the color.
      x: where.
      y: one value each, NaN as a gap.
      upper: the upper edge, where the line is the lower edge of a band.
      dashed: whether it is a prediction.
    """

    thing: str
    x: np.ndarray
    y: np.ndarray
    upper: np.ndarray | None = None
    dashed: bool = False


def draw_panels(
    panels: Mapping[str, Sequence[Line]],
    *,
    x_label: str,
    y_label: str,
    log: bool = False,
    log_x: bool = False,
) -> Any:
    """Return a figure with a subplot for each entry of ``panels``, or None without matplotlib.

    Args:
      panels: title (may be empty) to lines.
      x_label: of all.
      y_label: of all.
      log: whether the y axis is logarithmic; values that are not positive are gaps then.
      log_x: whether the x axis is.
    """
    things = list(dict.fromkeys(line.thing for lines in panels.values() for line in lines))
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width, height = (7.5 if columns == 1 else 4.2 * columns), (4.0 if rows == 1 else 2.9 * rows)
    legend_rows = -(-len(things) // 5)
    figure = new_figure(y_label, width, height + 0.22 * legend_rows)
    if figure is None:
        return None
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    colors = _colors(things)
    for axis, (title, lines) in zip(axes, panels.items(), strict=False):
        for line in lines:
            _draw(axis, line, colors[line.thing], log)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        if log and any(np.any(np.asarray(line.y) > 0) for line in lines):
            axis.set_yscale("log")
        if log_x:
            axis.set_xscale("log")
        axis.grid(alpha=0.25)
        axis.label_outer()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    _legend(figure, things, colors, panels)
    return figure


def _draw(axis: Any, line: Line, color: Any, log: bool) -> None:
    y = np.where(np.asarray(line.y) > 0, line.y, np.nan) if log else line.y
    if line.upper is not None:
        axis.fill_between(line.x, y, line.upper, color=color, alpha=0.12, linewidth=0)
        axis.plot(line.x, line.upper, color=color, linestyle="--", linewidth=1)
    style = {"linestyle": "--", "linewidth": 1} if line.dashed else {"linewidth": 1.6}
    marker = "." if len(line.x) <= 30 and not line.dashed else None
    axis.plot(line.x, y, color=color, marker=marker, markersize=4, **style)


def _colors(things: Sequence[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    if len(things) <= 10:
        return {thing: colormaps["tab10"](i) for i, thing in enumerate(things)}
    scale = colormaps["turbo"]
    return {thing: scale(0.05 + 0.9 * i / (len(things) - 1)) for i, thing in enumerate(things)}


def _legend(figure: Any, things: Sequence[str], colors: Mapping[str, Any], panels: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colors[thing], label=thing) for thing in things]
    if any(line.dashed for lines in panels.values() for line in lines):
        handles.append(Line2D([], [], color="gray", linestyle="--", label="theory"))
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize="small")
