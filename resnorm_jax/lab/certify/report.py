"""Certificates for people: a table, figures and a page."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from resnorm_jax.lab.certify.probe import RATES, STEPS
from resnorm_jax.lab.certify.score import AS_IS, NOT, WARM_UP
from resnorm_jax.reporting import html
from resnorm_jax.reporting.figures import new_figure
from resnorm_jax.reporting.files import write_json
from resnorm_jax.reporting.panels import SMALL, WIDTH, legend_below, legend_height, looks

RECORDS, PAGE = "certify.json", "certify.html"
MOST = 10.0  # nats that are drawn: a loss of 1e10 would hide the others
MOST_OF_CHANCE = 3.0  # likewise, of log K
KINDS = {AS_IS: "good", WARM_UP: "fair", NOT: "bad"}
COLORS = {AS_IS: "green", WARM_UP: "yellow", NOT: "red"}
SCORE = (
    f"Score: 1 - l / log K, l the lowest loss within the first {STEPS} steps of the optimizer on one "
    f"batch, at {' or '.join(f'{rate:g}' for rate in RATES)} times the peak learning rate, without "
    "warm-up; the mean over draws of the parameters. 1 is a loss of 0; 0 is chance. The steps are "
    "undone."
)
HOW = (
    "Each line is the loss over that of chance, log K, step by step. Low and early is good. One that "
    "stays near 1 belongs to a network that gets no signal; one that falls at the full rate but not at "
    "the higher one is near the edge of what it bears. Losses over 3 are drawn at 3."
)
AGREE = (
    "Each point is an arrangement: to the right what was predicted, upwards what training found. "
    "On a falling line the prediction was right. Crosses were said not to train."
)


def print_table(records: Sequence[dict[str, Any]], console: Console) -> None:
    """Print rank, verdict and reason of each arrangement."""
    table = Table(title="What to expect, best first", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("arrangement", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("reason")
    for row in records:
        verdict = Text(row["verdict"], style=COLORS[row["verdict"]])
        table.add_row(str(row["rank"]), row["name"], f"{row['score']:+.3f}", verdict, row["reason"])
    console.print(table)


def print_agreement(found: dict[str, Any], console: Console) -> None:
    """Print how the certificates compare with what was trained."""
    console.print(agreement_line(found), highlight=False, soft_wrap=True)


def agreement_line(found: dict[str, Any]) -> str:
    """Return one line on an agreement."""
    low, high = found["interval"]
    missed = f"; missed: {', '.join(found['missed'])}" if found["missed"] else ""
    return (
        f"{found['depth']} layers, {found['arrangements']} arrangements: Spearman "
        f"{found['spearman']:.2f} (95 % {low:.2f} to {high:.2f}) between score and trained order"
        f"{_seeds(found['seeds'])}; "
        f"{found['not_right']} of {found['not_said']} verdicts {NOT!r} right{missed}"
    )


def _seeds(agreement: float) -> str:
    return "" if math.isnan(agreement) else f" (two seeds of it agree by {agreement:.2f})"


def write(document: dict[str, Any], folder: Path, console: Console) -> None:
    """Write the records and the page."""
    write_json(folder / RECORDS, document)
    html.write_page(folder / PAGE, page(document))
    console.print(f"records  {folder / RECORDS}", highlight=False, soft_wrap=True)
    console.print(f"page     {folder / PAGE}", highlight=False, soft_wrap=True)


def page(document: dict[str, Any]) -> html.Html:
    """Return the page."""
    rows = [
        (
            row["rank"], row["name"], f"{row['score']:+.3f}",
            html.Html(
                f"{html.verdict(row['verdict'], KINDS[row['verdict']])}"
                f"<small>{html.escape(row['reason'])}</small>"
            ),
        )
        for row in document["certificates"]
    ]  # fmt: skip
    parts = [
        html.paragraph(document["what"]),
        html.paragraph(SCORE),
        html.heading("Verdicts"),
        html.table(("", "arrangement", "score", "verdict, and why"), rows),
        html.heading("The first steps"),
    ]
    drawn = _steps(document["certificates"], document["loss_by_step"])
    if drawn is not None:
        parts.append(html.figure(drawn, "Loss over that of chance, mean over draws", HOW))
    for found in document.get("agreement", []):
        parts += [
            html.heading(f"Checked against training, {found['depth']} layers"),
            html.paragraph(agreement_line(found)),
        ]
        drawn = _agreement(found)
        if drawn is not None:
            parts.append(html.figure(drawn, "Predicted against trained", AGREE))
    return html.page("Which arrangement will train", parts)


def _steps(records: Sequence[dict[str, Any]], by_step: dict[str, list[list[float]]]) -> Any:
    names = [row["name"] for row in records]
    figure = new_figure("the first steps", WIDTH, 3.8 + legend_height(names))
    if figure is None:
        return None
    panels = figure.subplots(1, len(RATES), sharey=True)
    for rate, axes, place in zip(RATES, panels, range(len(RATES)), strict=True):
        for name, look in looks(names).items():
            curve = np.minimum(np.array(by_step[name][place], np.float64), MOST_OF_CHANCE)
            axes.plot(range(len(curve)), curve, label=name, **{**look, "marker": ""})
        axes.set_title(f"{rate:g} x peak learning rate", fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
    panels[0].set_ylabel("loss / log K")
    legend_below(figure, panels[0].lines)
    return figure


def _agreement(found: dict[str, Any]) -> Any:
    figure = new_figure("predicted against trained", WIDTH, 4.4)
    if figure is None:
        return None
    axes = figure.subplots()
    for row in found["rows"]:
        if row["final_loss"] is None or not np.isfinite(row["final_loss"]):
            continue
        mark = "x" if row["verdict"] == NOT else "o"
        loss = min(row["final_loss"], MOST)
        axes.plot(row["score"], loss, mark, color="#c0392b" if row["failed"] else "#2a7d46")
        place, beside = (row["score"], loss), (4, 3)
        axes.annotate(row["arrangement"], place, beside, textcoords="offset points", fontsize=SMALL)
    axes.margins(x=0.15)  # room for the names
    axes.set_yscale("log")
    axes.set(
        xlabel="score at initialization", ylabel=f"final training loss (nats, at most {MOST:g})"
    )
    axes.grid(alpha=0.25)
    return figure
