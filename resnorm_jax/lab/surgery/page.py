"""The page of a surgery: what it changed, what it cost, and what some steps brought back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from resnorm_jax.reporting import html
from resnorm_jax.reporting.figures import new_figure

# All that a comparison may tell; a report has those of its kind.
COLUMNS = (
    ("cosine", "cosine", 1),
    ("error", "error (%)", 100),
    ("nearest", "same nearest (%)", 100),
    ("agreement", "same (%)", 100),
    ("kl", "KL (nats)", 1),
    ("largest", "largest", 1),
    ("accuracy", "accuracy (%)", 100),
    ("log_loss", "log loss", 1),
)
HOW_TO_READ_VECTORS = (
    "Each row is one model, scored on the same held-out texts. The unchanged model is the teacher: the "
    "changed one learns from its vectors of the other texts, and nothing has labels. Cosine: of a "
    "text's vector and the teacher's, mean of the texts. Error: the squared difference of the vectors "
    "over the square of the teacher's. Same nearest: the share of texts whose nearest other text, by "
    "cosine, is the teacher's. Largest: the largest difference of a number of a vector. With several "
    "seeds a number is their mean, with their standard deviation beside it; a seed decides the order "
    "of the texts, and what is fresh in the changed model."
)
HOW_TO_READ = (
    "Each row is one model, scored on the same test rows. The unchanged model is the teacher: the "
    "changed one learns from its probabilities on the training rows, without their labels, and never "
    "sees a test row. Same: the share of test rows whose most probable class is the teacher's. KL: "
    "the divergence of its probabilities from the teacher's, mean of the rows. Largest: the largest "
    "difference of a log-probability. With several seeds a number is their mean, with their standard "
    "deviation beside it; a seed decides the order of the training rows, and what is fresh in the "
    "changed model."
)


def page(report: Mapping[str, Any]) -> html.Html:
    """Return the page of a report of ``resnorm lab surgery``."""
    majority, vectors = report["majority"], report["temperature"] is None
    parts = [
        html.paragraph(
            f"The change: {report['change']}. How its parameters were made: {report['how']}."
            + (f" Majority class: {100 * majority:.2f} %." if majority is not None else "")
        ),
        html.heading("Before, after, and after distillation"),
        html.table(["model", *(label for _, label, _ in columns(report))], rows(report)),
        html.paragraph(HOW_TO_READ_VECTORS if vectors else HOW_TO_READ),
    ]
    drawn = _losses(report["losses"], report["title"]) if any(report["losses"]) else None
    if drawn is not None:
        how = "A curve for each seed; the axis is logarithmic. At 0 both models say the same."
        parts.append(html.figure(drawn, "Loss of the distillation", how))
    return html.page(f"Surgery on {report['title']}", parts, report["run"])


def columns(report: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Return the columns of a report's table: key, label, and what it is shown times."""
    return [column for column in COLUMNS if column[0] in report["stages"][0]["mean"]]


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Return the table's rows, as text."""
    return [
        [found["model"], *(_cell(found, name, times) for name, _, times in columns(report))]
        for found in report["stages"]
    ]


def _cell(found: Mapping[str, Any], name: str, times: float) -> str:
    mean, spread = times * found["mean"][name], times * found["spread"][name]
    shown = f"{mean:.2f}" if times != 1 else f"{mean:.4g}"
    if len(found["seeds"]) == 1:
        return shown
    return f"{shown} ± {spread:.2f}" if times != 1 else f"{shown} ± {spread:.2g}"


def _losses(curves: list[list[float]], title: str) -> Any:
    figure = new_figure("the loss", 8.0, 4.2)
    if figure is None:
        return None
    axes = figure.subplots()
    for curve in curves:
        axes.plot(np.arange(1, len(curve) + 1), np.maximum(curve, 1e-12), linewidth=1)
    axes.set_yscale("log")
    axes.set_xlabel("step (updates)")
    axes.set_ylabel("loss")
    axes.set_title(title, fontsize=12, parse_math=False)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
