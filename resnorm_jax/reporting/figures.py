"""Figures of a run. The only file that makes one with matplotlib, and only when it is drawn.

Figures are made from ``matplotlib.figure.Figure``: pyplot would choose a window system and keep
state for the whole process.
"""

import functools
import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.reporting.files import write_bytes

PANELS = (("loss", "cross-entropy loss (nats)"), ("accuracy", "accuracy (%)"))
STYLES = {
    "train": {"linestyle": "-", "linewidth": 1.3, "alpha": 0.75},
    "valid": {"linestyle": "--", "linewidth": 1.8, "alpha": 1.0},
}
STAR = {"marker": "*", "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 0.5,
        "linestyle": ""}  # fmt: skip
LOGARITHMIC = 20.0
"""A loss that falls by this factor has a logarithmic axis."""
SPLIT_NAMES = {"train": "train", "valid": "valid", "validation": "valid"}
NAMED_SEEDS = 10
"""More seeds than this share one gradient of colors, and only the first and last are named."""
COUNTED_CLASSES = 20
"""Up to this many classes, the cells of a confusion matrix have room for their counts."""


@functools.cache
def _note(name: str) -> None:
    """Say once for each figure that it is not drawn; the run goes on without it."""
    print(f"{name} not drawn: pip install 'resnorm_jax[plots]'", flush=True)


def _figure(path: str | Path, width: float, height: float) -> Any:
    """Return a new figure, or None after a note when matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        _note(Path(path).name)
        return None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(name: str, width: float, height: float) -> Any:
    """Return an empty figure for a page, or None, after a note that names it, without matplotlib."""
    return _figure(name, width, height)


def save_figure(figure: Any, path: str | Path) -> None:
    """Write a figure as PNG atomically, without matplotlib's version in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())


def _series(
    rows: Sequence[Mapping[str, Any]], seed: int, split: str, name: str
) -> tuple[list[int], list[float]]:
    """Return the steps and values of one curve, in the order of steps; null values are gaps."""
    points = sorted(
        (row["step"], np.nan if row[name] is None else float(row[name]))
        for row in rows
        if row["seed"] == seed and SPLIT_NAMES.get(row["split"]) == split and name in row
    )
    return [step for step, _ in points], [value for _, value in points]


def _seed_colors(seeds: Sequence[int]) -> dict[int, Any]:
    """Return a color for each seed: distinct for a few, a gradient for many."""
    from matplotlib import colormaps

    if len(seeds) <= NAMED_SEEDS:
        return {seed: colormaps["tab10"](i) for i, seed in enumerate(seeds)}
    scale = colormaps["viridis"]
    return {seed: scale(0.9 * i / (len(seeds) - 1)) for i, seed in enumerate(seeds)}


def draw_curves(
    rows: Sequence[Mapping[str, Any]],
    path: str | Path,
    title: str,
    scores: Sequence[Mapping[str, Any]] = (),
    scored: str = "test",
) -> bool:
    """Draw loss and accuracy over steps for each seed: training solid, validation dashed.

    The loss has a logarithmic axis where it falls to a twentieth or less. The final score of each seed
    is a star at the step whose parameters were scored; the mean of the accuracies is written beside.

    Args:
      rows: of a ``MetricsLog``, with ``loss`` and ``accuracy`` (a fraction) where known; the splits
        ``train`` and ``valid`` are drawn.
      path: where to write the PNG.
      title: above the figure.
      scores: of the seeds: ``seed``, ``step``, ``accuracy`` (a fraction) and ``log_loss``.
      scored: the split that they are of.

    Returns:
      Whether it was drawn; False, after a note, where matplotlib is missing.
    """
    figure = _figure(path, 10.0, 4.4)
    if figure is None:
        return False
    colors = _seed_colors(sorted({row["seed"] for row in rows}))
    for axes, (name, label) in zip(figure.subplots(1, 2), PANELS, strict=True):
        _draw_panel(axes, rows, colors, name)
        _draw_scores(axes, scores, colors, name, scored)
        axes.set_xlabel("training step (optimizer updates)")
        axes.set_ylabel(label)
    figure.suptitle(title, fontsize=12, parse_math=False)
    splits = {SPLIT_NAMES.get(row["split"]) for row in rows}
    _add_legend(figure, colors, splits, f"{scored} score" if scores else None)
    save_figure(figure, path)
    return True


def _draw_panel(
    axes: Any, rows: Sequence[Mapping[str, Any]], colors: Mapping[int, Any], name: str
) -> None:
    """Draw the curves of one metric."""
    factor = 100.0 if name == "accuracy" else 1.0
    for split, style in STYLES.items():
        for seed, color in colors.items():
            steps, values = _series(rows, seed, split, name)
            # A line through one point cannot be seen.
            marker = "o" if len(steps) == 1 else None
            axes.plot(steps, factor * np.asarray(values), color=color, marker=marker, **style)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    if name == "loss" and _falls_far(axes):
        axes.set_yscale("log")


def _falls_far(axes: Any) -> bool:
    """Whether a linear axis would show most of a curve as a flat line on zero."""
    drawn = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    positive = [y[y > 0] for y in drawn if np.any(y > 0)]
    return any(y.max() >= LOGARITHMIC * y.min() for y in positive)


def _draw_scores(
    axes: Any, scores: Sequence[Mapping[str, Any]], colors: Mapping[int, Any], name: str, split: str
) -> None:
    """Mark each seed's final score; write the mean accuracy in the corner below."""
    key, factor = ("accuracy", 100.0) if name == "accuracy" else ("log_loss", 1.0)
    for row in scores:
        style = {**STAR, "color": colors.get(row["seed"], "0.25")}
        axes.plot(row["step"], factor * row[key], zorder=3, clip_on=False, **style)
    if scores and name == "accuracy":
        mean = np.mean([row[key] for row in scores])
        text = f"{split}: {factor * mean:.2f} %" + (" (mean)" if len(scores) > 1 else "")
        axes.text(0.98, 0.05, text, transform=axes.transAxes, ha="right")


def _add_legend(
    figure: Any, colors: Mapping[int, Any], splits: set[str | None], star: str | None
) -> None:
    """Explain colors (seeds), line styles (splits) and the star once, below both panels."""
    from matplotlib.lines import Line2D

    seeds = list(colors) if len(colors) <= NAMED_SEEDS else [min(colors), max(colors)]
    names = {"train": "training", "valid": "validation"}
    handles = [Line2D([], [], color=colors[s], linewidth=2.5, label=f"seed {s}") for s in seeds]
    handles += [
        Line2D([], [], color="0.25", label=names[split], **{**style, "alpha": 1.0})  # type: ignore[arg-type]
        for split, style in STYLES.items()
        if split in splits
    ]
    if star:
        handles.append(Line2D([], [], **{**STAR, "color": "0.25"}, label=star))  # type: ignore[arg-type]
    # One row if it fits; matplotlib fills column by column, so a second row would split the seeds.
    columns = len(handles) if len(handles) <= 8 else 6
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.2
    )


def _short(name: str, head: int = 9, tail: int = 7) -> str:
    """Shorten in the middle: long class names often differ only at the end."""
    return name if len(name) <= head + tail + 3 else f"{name[:head]}...{name[-tail:]}"


def draw_confusion(
    matrix: np.ndarray | Sequence[Sequence[int]],
    classes: Sequence[str],
    path: str | Path,
    title: str,
) -> bool:
    """Draw a confusion matrix: colors show shares of each true class, numbers the counts.

    Args:
      matrix: ``[K, K]`` counts, rows true. Rows of classes without examples are grey.
      classes: K names.
      path: where to write the PNG.
      title: above the figure.

    Returns:
      Whether it was drawn; False, after a note, where matplotlib is missing.
    """
    counts = np.asarray(matrix)
    size = float(np.clip(2.4 + 0.5 * len(classes), 4.6, 11.0))
    figure = _figure(path, size + 1.2, size)
    if figure is None:
        return False
    support = counts.sum(axis=1, keepdims=True)
    shares = np.ma.masked_where((support == 0) | (counts < 0), counts / np.maximum(support, 1))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_facecolor("0.93")
    _label_classes(axes, [_short(str(name)) for name in classes])
    _separate_cells(axes, len(classes))
    if len(classes) <= COUNTED_CLASSES:
        _write_counts(axes, counts, shares)
    bar = figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    bar.outline.set_visible(False)
    # Wrapped here: matplotlib's own wrap=True reads a title with $ signs as mathematics.
    axes.set_title(textwrap.fill(title, int(9 * size)), fontsize=12, parse_math=False)
    save_figure(figure, path)
    return True


def draw_labels(per_class: Sequence[Mapping[str, Any]], path: str | Path, title: str) -> bool:
    """Draw precision, recall and F1 of each label as points on a line, the best F1 on top.

    Args:
      per_class: of `resnorm_jax.reporting.many_labels.score`.
      path: where to write the PNG.
      title: above the figure.

    Returns:
      Whether it was drawn; False, after a note, where matplotlib is missing.
    """
    rows = sorted(per_class, key=lambda row: row["f1"])
    figure = _figure(path, 7.0, float(np.clip(1.8 + 0.28 * len(rows), 3.0, 24.0)))
    if figure is None:
        return False
    axes, places = figure.subplots(), np.arange(len(rows))
    ends = np.array([[row["precision"], row["recall"]] for row in rows])
    axes.hlines(places, ends.min(axis=1), ends.max(axis=1), color="0.75", linewidth=2)
    for name, marker in (("precision", ">"), ("recall", "<"), ("f1", "o")):
        values = [row[name] for row in rows]
        label = "F1" if name == "f1" else name
        axes.plot(values, places, marker, label=label, markersize=6, clip_on=False)
    shown = places[:: 1 + len(rows) // 80]
    names = [f"{_short(str(rows[k]['class']))} ({rows[k]['support']})" for k in shown]
    axes.set_yticks(shown, names, fontsize=8, parse_math=False)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4), xlabel="share")
    axes.set_ylabel("label (rows that have it)")
    axes.grid(True, axis="x", color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(textwrap.fill(title, 60), fontsize=11, parse_math=False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)
    return True


def _label_classes(axes: Any, names: Sequence[str]) -> None:
    """Write the class names along both axes, slanted below where they would meet."""
    places = range(0, len(names), 1 + len(names) // 50)
    shown = [names[place] for place in places]
    font = 9 if len(names) <= COUNTED_CLASSES else 7
    axes.set_xticks(places, shown, fontsize=font, parse_math=False)
    axes.set_yticks(places, shown, fontsize=font, parse_math=False)
    if max(map(len, names), default=0) > (10 if len(names) <= 4 else 3):
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _separate_cells(axes: Any, size: int) -> None:
    """Draw thin white lines between the cells, in place of a frame."""
    edges = np.arange(1, size) - 0.5
    width = 1.2 if size <= 50 else 0.3
    axes.hlines(edges, -0.5, size - 0.5, color="white", linewidth=width)
    axes.vlines(edges, -0.5, size - 0.5, color="white", linewidth=width)


def _write_counts(axes: Any, counts: np.ndarray, shares: Any) -> None:
    """Write each count in its cell, white on dark; zeros are pale, so that errors stand out."""
    font = 10 if len(counts) <= 10 else 8
    for (row, column), count in np.ndenumerate(counts):
        dark = shares[row, column] is not np.ma.masked and shares[row, column] > 0.5
        color = "white" if dark else "0.7" if count == 0 else "0.15"
        axes.text(column, row, f"{count:d}", ha="center", va="center", fontsize=font, color=color)
