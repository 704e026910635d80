"""The table of claims on a terminal, and the page with a figure for each."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resnorm_jax.lab.theory.plots import draw_row
from resnorm_jax.lab.theory.run import NOT_MEASURED, NOT_REPRODUCED, REPRODUCED
from resnorm_jax.reporting import html

Row = Mapping[str, Any]
KINDS = {REPRODUCED: "good", NOT_REPRODUCED: "bad", NOT_MEASURED: "none"}
STYLES = {REPRODUCED: "green", NOT_REPRODUCED: "red", NOT_MEASURED: "yellow"}
HOW = (
    "Points are means over seeds; the light area around a line runs from the least seed to the "
    "greatest; the green area is the band."
)


def measured_words(row: Row) -> str:
    """Return the numbers that the band speaks of, e.g. ``slope -0.53; size 1.42 to 1.62``."""
    if row["verdict"] == NOT_MEASURED:
        return row["why"]
    found = row["numbers"]
    names = dict.fromkeys(bound["number"] for bound in row["bounds"])
    return "; ".join(f"{name.replace('_', ' ')} {_value(found[name])}" for name in names)


def _value(value: float | Sequence[float | None] | None) -> str:
    if isinstance(value, Sequence):
        known = [v for v in value if v is not None]
        if not known or min(known) == max(known):
            return _value(known[0] if known else None)
        return f"{min(known):.3g} to {max(known):.3g}"
    return "not finite" if value is None else f"{value:.3g}"


def summary(document: Row) -> str:
    """Return one line: how many claims were reproduced."""
    return (
        f"{document['reproduced']} of {document['measured']} claims reproduced inside their bands, "
        f"in {document['seconds']:.0f} s ({document['processor_seconds']:.0f} s of the processor)"
    )


def print_table(document: Row, console: Console) -> None:
    """Print a row for each claim."""
    table = Table(title="Published results, measured again", title_justify="left", show_lines=True)
    for name in ("claim", "band", "measured", "verdict"):
        table.add_column(name)
    table.add_column("s", justify="right", no_wrap=True)
    for row in document["claims"]:
        claim = Text(row["id"], style="bold") + Text(f"\n{row['statement']}\n", style="default")
        claim += Text(row["source"], style="dim")
        verdict = Text(row["verdict"], style=STYLES[row["verdict"]])
        measured = Text(measured_words(row))
        table.add_row(claim, Text(row["band"]), measured, verdict, f"{row['seconds']:.0f}")
    console.print(table)
    console.print(summary(document), highlight=False)
    console.print("one alone: resnorm lab theory --only=CLAIM", markup=False, highlight=False)


def page(document: Row) -> html.Html:
    """Return the page."""
    rows = document["claims"]
    failed = [row for row in rows if row["verdict"] != REPRODUCED]
    parts = [
        html.paragraph(
            "Each claim of a paper is measured again, where it can be with this library's own "
            "encoder, arrangements and streams, and held against a band that was fixed before "
            "measuring. A claim outside its band is listed as not reproduced, with what was measured."
        ),
        html.paragraph(html.verdict(summary(document), "good" if not failed else "fair")),
        _overview(rows),
        html.heading("Where and when"),
        _about(document),
        *(part for row in rows for part in _section(row)),
    ]
    return html.page("Theory: published results, measured again", parts)


def _overview(rows: Sequence[Row]) -> html.Html:
    header = ("claim", "statement", "source", "band", "measured", "verdict", "seconds", "command")
    lines = [
        (
            html.Html(f'<a href="#{html.anchor(row["id"])}">{html.escape(row["id"])}</a>'),
            row["statement"], row["source"], row["band"], measured_words(row), _verdict(row),
            row["seconds"], html.Html(f"<code>{html.escape(row['command'])}</code>"),
        )
        for row in rows
    ]  # fmt: skip
    return html.table(header, lines, "All claims; seconds include compiling, and claims that share "
                      "runs are counted where they are first measured.")  # fmt: skip


def _about(document: Row) -> html.Html:
    names = ("date", "backend", "device", "device_count", "cores", "load_average", "resnorm_jax")
    lines = [(name.replace("_", " "), str(document[name])) for name in names]
    lines += [(name, str(version)) for name, version in document["versions"].items()]
    return html.table(("", "value"), lines)


def _verdict(row: Row) -> html.Html:
    return html.verdict(row["verdict"], KINDS[row["verdict"]])


def _section(row: Row) -> list[html.Html]:
    facts = [
        ("source", row["source"]),
        ("set-up", row["setup"]),
        ("seeds", str(len(row["seeds"]))),
        ("band", row["band"]),
        ("band from", row["band_from"]),
        ("measured", measured_words(row)),
    ]
    parts = [
        html.heading(row["id"]),
        html.paragraph(row["statement"], " ", _verdict(row)),
        html.table(("", "what"), facts),
    ]
    figure = draw_row(row) if row["panels"] else None
    if figure is not None:
        parts.append(html.figure(figure, row["statement"], f"{row['reading']} {HOW}"))
    elif row["panels"]:
        parts.append(html.paragraph("Figure not drawn: pip install 'resnorm_jax[plots]'"))
    numbers = [(name, _all(value)) for name, value in row["numbers"].items()]
    if numbers:
        parts.append(html.details("Every number", [html.table(("name", "value"), numbers)]))
    return [*parts, html.code(row["command"])]


def _all(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(v) for v in value)
    return _value(value)
