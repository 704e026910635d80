"""One figure for people in a hurry: the accuracy of each arrangement, shallow and deep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax import arrangements
from resnorm_jax.reporting.figures import new_figure, save_figure

SECTIONS = ("vowels", "digits")
COLORS, MARKS = ("#0072b2", "#d55e00", "#009e73"), "osD"  # apart for the colour-blind too
TICKS = (0, 50, 80, 90, 95, 98, 99)
WIDTH, LINE, REST = 4.6, 0.26, 1.5  # inches: a phone's width, of a row, of all else
BEYOND = 101.0  # percent: where the stretched axis would end


def draw_depths(document: Mapping[str, Any], path: Path) -> bool:
    """Draw a trained table that has several depths as a PNG: a line a row, a mark a depth.

    Of arrangements those are drawn that are usual. The axis of the accuracy is stretched towards
    100 %, so that both a row that did not train and differences of a point are seen; bars are one
    standard deviation over seeds, and the dotted line is the majority class.

    Args:
      document: as `resnorm_jax.bench.results.read` returns it.
      path: where to write.

    Returns:
      Whether it was drawn; False, after a note, where matplotlib is missing, or no table has depths.
    """
    table = next((document[name] for name in SECTIONS if name in document), None)
    points = {} if table is None else depth_points(table["rows"])
    depths = sorted({depth for row in points.values() for depth in row})
    if table is None or len(depths) < 2:
        return False
    figure = new_figure(path.name, WIDTH, LINE * len(points) + REST)
    if figure is None:
        return False
    axes = figure.subplots()
    for depth, color, mark, shift in zip(depths, COLORS, MARKS, (-0.12, 0.12, 0.0), strict=False):
        _draw_depth(axes, points, depth, f"{depth} layers", shift, {"color": color, "marker": mark})
    axes.axvline(100 * table["majority"], color="0.4", linestyle=":", label="majority class")
    _finish(axes, list(points))
    name = "JapaneseVowels" if table["data"] == "vowels" else table["data"]
    axes.set_title(f"{name}: mean and sd of {table['recipe']['seeds']} seeds", fontsize=10)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save_figure(figure, path)
    return True


def depth_points(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, tuple[float, float]]]:
    """Return name to depth to accuracy and standard deviation in percent; the best deep ones last."""
    points: dict[str, dict[int, tuple[float, float]]] = {}
    for row in rows:
        known = row["name"] in arrangements.names()
        if row["accuracy"] is not None and not (known and not arrangements.get(row["name"]).usual):
            spread = 100 * row["accuracy"], 100 * (row["sd"] or 0.0)
            points.setdefault(row["name"], {})[row["depth"]] = spread
    return dict(sorted(points.items(), key=lambda item: item[1].get(max(item[1]), (0.0,))[0]))


def _draw_depth(
    axes: Any, points: Mapping[str, Any], depth: int, label: str, shift: float, look: Any
) -> None:
    found = [
        (place + shift, *row[depth]) for place, row in enumerate(points.values()) if depth in row
    ]
    y, x, bars = np.array(found).T
    low, high = np.minimum(bars, x), np.minimum(bars, 100 - x)
    axes.errorbar(
        x, y, xerr=[low, high], label=label, linestyle="", markersize=5, capsize=2, elinewidth=1, **look
    )  # fmt: skip


def _finish(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_xscale(
        "function", functions=(lambda x: -np.log(BEYOND - x), lambda y: BEYOND - np.exp(-y))
    )
    axes.set_xlim(0, 99.5)
    axes.set_xticks(TICKS, [str(tick) for tick in TICKS], fontsize=9)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("test accuracy (%), stretched towards 100")
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
