"""The page of a surgery: what it changed, what it cost, and what some steps brought back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from resnorm_jax.reporting import html
from resnorm_jax.reporting.figures import new_figure

COLUMNS = (
    ("agreement", "same (%)", 100),
    ("kl", "KL (nats)", 1),
    ("largest", "largest", 1),
    ("accuracy", "accuracy (%)", 100),
    ("log_loss", "log loss", 1),
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
    parts = [
        html.paragraph(
            f"The change: {report['change']}. How its parameters were made: {report['how']}. "
            f"Majority class: {100 * report['majority']:.2f} %."
        ),
        html.heading("Before, after, and after distillation"),
        html.table(["model", *(label for _, label, _ in COLUMNS)], rows(report)),
        html.paragraph(HOW_TO_READ),
    ]
    drawn = _losses(report["losses"], report["title"]) if any(report["losses"]) else None
    if drawn is not None:
        how = "A curve for each seed; the axis is logarithmic. At 0 both models say the same."
        parts.append(html.figure(drawn, "Loss of the distillation on training rows", how))
    return html.page(f"Surgery on {report['title']}", parts, report["run"])


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Return the table's rows, as text."""
    return [
        [found["model"], *(_cell(found, name, times) for name, _, times in COLUMNS)]
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
    axes.set_ylabel("loss (nats)")
    axes.set_title(title, fontsize=12, parse_math=False)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
