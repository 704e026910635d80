"""What a grid has shown: tables, figures, a page, and the same numbers as JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from resnorm_jax.data import Dataset
from resnorm_jax.lab.compare import figures
from resnorm_jax.lab.compare.grid import Grid
from resnorm_jax.lab.compare.records import CHANCE, Record, label_entropy, summarize
from resnorm_jax.reporting import html
from resnorm_jax.reporting.files import write_json
from resnorm_jax.training.run_data import baselines, data_line

RECORDS, PAGE = "compare.json", "compare.html"
HOW = {
    "depth": "Up is better. A line that falls to the right is an arrangement that does not stand "
    "depth. Bars are 95 % intervals of the mean over seeds (Student's t).",
    "rate": "Down is better. A flat line does not care about the learning rate; one that rises to "
    "the dotted line has learned nothing there.",
    "curve": "Down is better, and steeper is faster. The dotted line is the loss of who knows only "
    "how frequent each class is.",
}


def report(
    grid: Grid, dataset: Dataset, records: Sequence[Record], folder: Path, console: Console
) -> dict[str, Any]:
    """Print the table, and write ``compare.json`` and ``compare.html``; return the document."""
    entropy = label_entropy(dataset.train.y)
    document = {
        "grid": grid.to_dict(),
        "data": data_line(dataset),
        "label_entropy": entropy,
        "baselines": baselines(dataset, grid.config.train.score),
        "programs": len(grid.cells),
        "summary": summarize(records, entropy),
        "runs": list(records),
    }
    print_table(document, console)
    write_json(folder / RECORDS, document)
    html.write_page(folder / PAGE, page(document))
    console.print(f"records  {folder / RECORDS}", highlight=False, soft_wrap=True)
    console.print(f"page     {folder / PAGE}", highlight=False, soft_wrap=True)
    return document


HYPHENATED = {"arrangement": "arrange\u00adment", "sensitivity": "sensi\u00adtivity"}
HEADER = ("arrangement", "layers", "best rate", "final loss", "accuracy %", "sensitivity", "failed")


def rows(document: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the cells of the table: depth by depth, the least training loss first."""
    ordered = sorted(document["summary"], key=lambda row: (row["depth"], row["final_loss"][0]))
    return [
        (
            row["arrangement"],
            row["depth"],
            f"{row['learning_rate']:g}",
            _spread(row["final_loss"], 1, 3),
            _spread(row["accuracy"], 100, 2),
            f"{row['sensitivity']:.3f}",
            f"{round(row['failed'][0] * row['runs'])} of {row['runs']}",
        )
        for row in ordered
    ]


def tables(document: dict[str, Any]) -> list[html.Html]:
    """Return a table of each depth, narrow enough for a phone: the caption has the layers."""
    found: dict[int, list[list[str]]] = {}
    for name, layers, *cells in rows(document):
        kept = [str(cell).replace("± ", "±\u00a0") for cell in cells]  # a line breaks before ±
        found.setdefault(layers, []).append([name, *kept])
    header = [HYPHENATED.get(name, name) for name in HEADER if name != "layers"]
    return [html.table(header, cells, f"{layers} layers") for layers, cells in found.items()]


def _spread(interval: Sequence[float], factor: float, digits: int) -> str:
    mean, low, high = (factor * v for v in interval)
    half = f" ± {(high - low) / 2:.{digits}f}" if high >= low else ""
    return f"{mean:.{digits}f}{half}"


def print_table(document: dict[str, Any], console: Console) -> None:
    """Print one line for each arrangement and depth, and the trivial rules below."""
    table = Table(title=document["data"], title_justify="left")
    for name in HEADER:
        table.add_column(name, justify="left" if name == "arrangement" else "right", no_wrap=True)
    for row in rows(document):
        table.add_row(*(str(cell) for cell in row))
    table.add_section()
    for rule, accuracy in document["baselines"].items():
        table.add_row(rule, "", "", "", f"{100 * accuracy:.2f}", "", "")
    console.print(table)


def page(document: dict[str, Any]) -> html.Html:
    """Return the page of a grid."""
    summary, grid = document["summary"], document["grid"]
    entropy, majority = document["label_entropy"], document["baselines"].get("majority class")
    drawn = []
    if len(grid["depths"]) > 1:
        made = figures.by_depth(summary, "accuracy", "accuracy", majority)
        drawn.append((made, "Accuracy against depth", HOW["depth"]))
    for depth in grid["depths"]:
        made = figures.curves(document["runs"], summary, depth, entropy)
        drawn.append((made, f"Training loss, {depth} layers, each at its best rate", HOW["curve"]))
        if len(grid["rates"]) > 1:
            made = figures.by_rate(summary, depth, entropy)
            drawn.append((made, f"Final loss against learning rate, {depth} layers", HOW["rate"]))
    parts = [
        html.paragraph(
            f"{document['data']}. {document['programs']} programs, {len(document['runs'])} runs of "
            f"{grid['steps']} updates. The rate is chosen by training loss; "
            f"the {grid['config']['train']['score']} rows choose nothing."
        ),
        html.heading("Tables"),
        html.paragraph(
            "Means over seeds at the best rate, with half the 95 % interval (Student's t). "
            "Sensitivity: mean over rates of the final loss above the best rate's (after Wortsman et "
            "al. 2023, arXiv 2309.14322). Failed: a loss that is not finite, or a final loss above "
            f"{CHANCE:g} of the labels' entropy, {entropy:.3f} nats; all seeds and rates."
        ),
        *tables(document),
        html.heading("Figures"),
        *(html.figure(f, caption, how) for f, caption, how in drawn if f is not None),
    ]  # fmt: skip
    return html.page("Arrangements compared", parts)
