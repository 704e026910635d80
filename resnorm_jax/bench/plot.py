"""The roofline: bytes a second that norms reach under the copy's, and how much of a step is used."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnorm_jax.bench.speed_report import names_of
from resnorm_jax.reporting.figures import new_figure, save_figure

Row = Mapping[str, Any]
DIRECTIONS = ("forward", "backward")


def draw_roofline(document: Mapping[str, Any], path: Path) -> bool:
    """Draw a document's norms and steps as a PNG.

    One panel for each norm, dtype and direction: bandwidth by width, a line for each peer, the copy's
    as the roof. One for the training steps: operations a second, the device's peak as the roof where
    it is known.

    Args:
      document: as `resnorm_jax.bench.results.read` returns it.
      path: where to write.

    Returns:
      Whether it was drawn; False, after a note, where matplotlib is missing, or nothing was measured.
    """
    panels = norm_panels(document.get("norm", ()))
    steps = [row for row in document.get("step", ()) if row.get("flops")]
    count = len(panels) + bool(steps)
    if not count:
        return False
    columns = min(4, count)
    rows = -(-count // columns)
    figure = new_figure(path.name, 4.4 * columns, 3.6 * rows + 0.8)
    if figure is None:
        return False
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    colors = _colors(document)
    for axis, (title, lines) in zip(axes, panels.items(), strict=False):
        _draw_norms(axis, title, lines, colors)
    if steps:
        _draw_steps(axes[len(panels)], steps, colors)
    for axis in axes[count:]:
        axis.set_visible(False)
    _legend(figure, colors)
    versions = document["versions"]
    title = f"{document['device']}, jax {versions['jax']}, {document['date'][:10]}"
    figure.suptitle(title, fontsize=12, parse_math=False)
    save_figure(figure, path)
    return True


def norm_panels(rows: Sequence[Row]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return title to lines: a name's (width, bytes a second), by width; ``"copy"`` among them.

    Of two arrays of one width the larger counts: the other may fit in a cache.
    """
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for row in sorted(rows, key=lambda row: row["shape"][0]):
        for way in DIRECTIONS:
            found = row["passes"].get(way)
            if found is None or "copy" not in row:
                continue
            lines = panels.setdefault(f"{row['norm']}, {row['dtype']}, {way}", {})
            width = row["shape"][-1]
            lines.setdefault("copy", {})[width] = row["copy"]
            for name, times in found["times"].items():
                lines.setdefault(name, {})[width] = found["bytes"] / times["median"]
    return {
        title: {name: sorted(points.items()) for name, points in lines.items()}
        for title, lines in sorted(panels.items(), key=lambda item: item[0].partition(", ")[0])
    }


def _draw_norms(axis: Any, title: str, lines: Mapping[str, Any], colors: Mapping[str, Any]) -> None:
    for name, points in lines.items():
        widths = [width for width, _ in points]
        speeds = [speed / 1e9 for _, speed in points]
        if name == "copy":
            axis.axhline(max(speeds), color="0.3", linestyle="--")
            continue
        bold = 2.2 if name == "ours" else 1.2
        axis.plot(widths, speeds, marker="o", markersize=3.5, linewidth=bold, color=colors[name])
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda width, _: f"{width:g}")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("width")
    axis.set_ylabel("GB/s read and written")
    axis.set_title(title, fontsize=10)
    axis.grid(True, color="0.9", linewidth=0.8)


def _draw_steps(axis: Any, rows: Sequence[Row], colors: Mapping[str, Any]) -> None:
    """A bar for each peer and model; a dash over those of a model is the device's peak."""
    labels, place = [], 0
    for row in rows:
        start = place
        for name in names_of([row["times"]]):
            speed = row["flops"] / row["times"][name]["median"]
            axis.bar(place, speed / 1e12, color=colors[name])
            place += 1
        labels.append((0.5 * (start + place - 1), row["key"].replace(" ", "\n")))
        if row["peak_flops"]:
            axis.hlines(row["peak_flops"] / 1e12, start - 0.5, place - 0.5, "0.3", "--")
        place += 1
    axis.set_yscale("log")
    axis.set_xticks([x for x, _ in labels], [label for _, label in labels], fontsize=8)
    axis.set_ylabel("TFLOP/s of the model")
    axis.set_title("training step", fontsize=10)


def _colors(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a color for each name, the same in all panels."""
    from matplotlib import colormaps

    norms = [found["times"] for row in document.get("norm", ()) for found in row["passes"].values()]
    steps = [row["times"] for row in document.get("step", ())]
    names = names_of([*norms, *steps])
    return {name: colormaps["tab20"](i % 20) for i, name in enumerate(names)}


def _legend(figure: Any, colors: Mapping[str, Any]) -> None:
    from matplotlib.lines import Line2D

    roof = Line2D([], [], color="0.3", linestyle="--", label="copy, or peak")
    handles = [roof, *(Line2D([], [], color=c, linewidth=3, label=n) for n, c in colors.items())]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
