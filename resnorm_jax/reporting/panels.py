"""Panels of lines beside each other, and how lines look on a page: legible at a phone's width too.

A page shows a figure as wide as its column. At 390 pixels of a phone a figure of 6 inches has letters
of 8 pixels, one of 12 inches has specks; so figures are narrow, and their legend stands below.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnorm_jax.reporting.figures import new_figure

COLUMNS = 2
WIDTH = 6.0  # inches
SMALL = 8  # points
MARKS = "os^vDP*X"
WIDTHS, DASHES = (3.4, 2.5, 1.7, 1.0), ("-", (0, (4, 1.5)), (0, (1.5, 1)))
PREDICTION = {"linestyle": ":", "linewidth": 1.3}


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
      thing: whose it is; decides how it looks.
      x: where.
      y: one value each, NaN as a gap.
      upper: the upper edge, where the line is the lower edge of a band.
      predicted: whether it is a prediction, drawn dotted.
    """

    thing: str
    x: np.ndarray
    y: np.ndarray
    upper: np.ndarray | None = None
    predicted: bool = False


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return color, mark, width and dashes of each line, so that those which coincide are all seen.

    Of two lines in one place the thinner is above, and where they are as wide, the dashed one; twelve
    lines differ in one of both, and all in color or mark.
    """
    colors = _colors(len(names))
    return {
        name: {
            "color": colors[i],
            "marker": MARKS[i % len(MARKS)],
            "markersize": 4.5,
            "linewidth": WIDTHS[i % len(WIDTHS)],
            "linestyle": DASHES[i // len(WIDTHS) % len(DASHES)],
            "zorder": 2 + 0.1 * (i % len(WIDTHS)),
        }
        for i, name in enumerate(names)
    }


def _colors(count: int) -> list[Any]:
    from matplotlib import colormaps

    if count <= 20:
        return [colormaps["tab10" if count <= 10 else "tab20"](i) for i in range(count)]
    return [colormaps["turbo"](0.05 + 0.9 * i / (count - 1)) for i in range(count)]


def legend_columns(names: Sequence[str]) -> int:
    """Return how many columns of these names fit below a figure."""
    return 2 if max(map(len, names), default=0) > 20 else 3


def legend_height(names: Sequence[str]) -> float:
    """Return the inches that `legend_below` takes."""
    return 0.19 * -(-len(names) // legend_columns(names)) + 0.2


def legend_below(figure: Any, handles: Sequence[Any]) -> None:
    """Put one legend for the whole figure below it."""
    columns = legend_columns([handle.get_label() for handle in handles])
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=SMALL,
        frameon=False, handlelength=2.6, columnspacing=1.2,
    )  # fmt: skip


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
    height = (3.6 if rows == 1 else 2.4 * rows) + legend_height([*things, "theory"])
    figure = new_figure(y_label, WIDTH, height)
    if figure is None:
        return None
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    styles = looks(things)
    for axis, (title, lines) in zip(axes, panels.items(), strict=False):
        for line in lines:
            _draw(axis, line, styles[line.thing], log)
        axis.set_title(title, fontsize=10)
        axis.set(xlabel=x_label, ylabel=y_label)
        if log and any(np.any(np.asarray(line.y) > 0) for line in lines):
            axis.set_yscale("log")
        if log_x:
            axis.set_xscale("log")
        else:
            axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.label_outer()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    _legend(figure, styles, panels)
    return figure


def _draw(axis: Any, line: Line, style: Mapping[str, Any], log: bool) -> None:
    y = np.where(np.asarray(line.y) > 0, line.y, np.nan) if log else line.y
    if line.predicted:
        style = {**style, **PREDICTION, "marker": None, "zorder": 3}
    elif len(line.x) > 30:
        style = {**style, "marker": None}
    if line.upper is not None:
        axis.fill_between(line.x, y, line.upper, color=style["color"], alpha=0.12, linewidth=0)
        axis.plot(line.x, line.upper, **style)
    axis.plot(line.x, y, **style)


def _legend(figure: Any, styles: Mapping[str, Mapping[str, Any]], panels: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=thing, **style) for thing, style in styles.items()]
    if any(line.predicted for lines in panels.values() for line in lines):
        handles.append(Line2D([], [], color="gray", label="theory", **PREDICTION))  # type: ignore[arg-type]
    if len(handles) > 1:
        legend_below(figure, handles)
