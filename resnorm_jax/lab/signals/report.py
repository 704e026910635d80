"""Signals shown: tables in a terminal, figures, one HTML page, and the same numbers as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from resnorm_jax.lab.signals.measure import Signals
from resnorm_jax.lab.signals.summary import FEATURES, GROUPS, summary
from resnorm_jax.lab.signals.table import STATISTICS, Statistic
from resnorm_jax.lab.signals.theory import Prediction, predictions
from resnorm_jax.reporting import html
from resnorm_jax.reporting.files import write_json
from resnorm_jax.reporting.panels import Line, draw_panels

Found = Mapping[str, Signals]  # arrangement to what was measured
SHOWN = 13  # layers of a table
DETAILED = 4  # arrangements up to which each has tables of its own in the terminal
X_LABELS = {
    "level": "layers done (0: the stream that enters)",
    "layer": "layer",
    "rank": "rank of the singular value",
}


def short(value: float | None) -> str:
    """Return three digits; a dash where there is no value."""
    return "-" if value is None or not np.isfinite(value) else f"{value:.3g}"


def selected(depth: int) -> list[int]:
    """Levels to show: all, or some evenly spread with the first and the last."""
    return sorted({round(n) for n in np.linspace(0, depth, min(depth + 1, SHOWN))})


def _columns(signals: Signals, axes: tuple[str, ...], names: tuple[str, ...] = ()) -> list[Any]:
    """``(header, values [N + 1])`` of each line; a layer's value stands at the level after it."""
    found = []
    for name, lines in signals.values.items():
        row = STATISTICS.get(name)
        if row.axis not in axes or (names and name not in names):
            continue
        for line, values in lines.items():
            padded = values if row.axis == "level" else np.concatenate([[np.nan], values])
            found.append((f"{row.label} {line}".strip(), padded))
    return found


GRADIENTS = ("layer_gradient",)
UPDATES = ("layer_update",)


def layer_tables(signals: Signals) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, header and cells of each table by layer."""
    rest = tuple(n for n in signals.values if n not in GRADIENTS + UPDATES)
    parts = (("Stream and branches", rest), ("", GRADIENTS), ("", UPDATES))
    found = []
    for title, names in parts:
        columns = _columns(signals, ("level", "layer"), names)
        if not columns:
            continue
        label = title or STATISTICS.get(names[0]).label
        headers = [h if title else h.removeprefix(label).strip() for h, _ in columns]
        levels = [n for n in selected(signals.depth) if n or not np.isnan(columns[0][1][0])]
        cells = [[str(n), *(short(values[n]) for _, values in columns)] for n in levels]
        found.append((label, ["layer", *headers], cells))
    return found


def scalars(signals: Signals) -> list[list[str]]:
    """Return name and value of each number that belongs to no layer."""
    rows = []
    for name, lines in signals.values.items():
        row = STATISTICS.get(name)
        if row.axis == "none":
            rows += [[f"{row.label} {k}".strip(), short(float(v))] for k, v in lines.items()]
        elif row.axis == "rank":
            top = ", ".join(short(v) for v in signals.line(name)[:5])
            rows.append([f"{row.label} ({signals.notes.get('jacobian', '')})", top])
    return rows


def print_signals(found: Found, console: Console) -> None:
    """Print tables by layer of each arrangement, or a line of each where there are many."""
    if len(found) > DETAILED:
        for title, header, cells in _overview(found):
            _print(console, title, header, cells)
        return
    for name, signals in found.items():
        for title, header, cells in layer_tables(signals):
            _print(console, f"{name}: {title}", header, cells)
        _print(console, f"{name}: outside of the layers", ["", "value"], scalars(signals))


def _overview(found: Found) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return title, header and cells of a few narrow tables: a line of each arrangement."""
    each = {name: summary(signals) for name, signals in found.items()}
    shown = [f for f in FEATURES if f.name in next(iter(each.values()))]
    tables = []
    for group in GROUPS:
        some = [feature for feature in shown if feature.group == group]
        cells = [[n, *(short(values[f.name]) for f in some)] for n, values in each.items()]
        if some:
            tables.append((group, ["arrangement", *(f.label for f in some)], cells))
    return tables


def _print(console: Console, title: str, header: list[str], cells: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def figure_of(row: Statistic, found: Found) -> Any:
    """Return a statistic's figure: a subplot for each kind of line, theory dotted."""
    first = {"level": 0, "layer": 1, "rank": 1}[row.axis]
    panels: dict[str, list[Line]] = {}
    for name, signals in found.items():
        for line, values in signals.values.get(row.name, {}).items():
            x = np.arange(first, first + len(values))
            drawn = panels.setdefault(line, [])
            drawn.append(Line(name, x, values))
            drawn += [_predicted(p, name, x, signals) for p in predictions(row.name, name)]
    if not panels:
        return None
    longest = max(len(line.x) for lines in panels.values() for line in lines)
    return draw_panels(
        panels, x_label=X_LABELS[row.axis], y_label=f"{row.label} ({row.unit})", log=row.log,
        log_x=row.axis == "rank" and longest > 30,
    )  # fmt: skip


def _predicted(row: Prediction, name: str, x: np.ndarray, signals: Signals) -> Line:
    start = float(signals.line(row.statistic)[0])
    lower, *upper = row.curve(x, signals.depth, start)
    return Line(name, x, lower, upper[0] if upper else None, predicted=True)


def signal_page(found: Found, title: str, about: str) -> html.Html:
    """Return the page: overview, a figure for each statistic with how to read it, tables."""
    overview = _overview(found)
    labels = [label for _, header, _ in overview for label in header]
    legend = [[f.label, f.definition, f.name] for f in FEATURES if f.label in labels]
    parts = [
        html.paragraph(about),
        html.heading("Overview"),
        *(html.table(header, cells, title) for title, header, cells in overview),
        html.details(
            "What the columns are", [html.table(["column", "definition", "name in JSON"], legend)]
        ),
    ]
    measured = [
        row for row in STATISTICS.rows() if any(row.name in s.values for s in found.values())
    ]
    for row in measured:
        if row.axis != "none":
            parts += _section(row, found)
    parts.append(html.heading("Tables"))
    for name, signals in found.items():
        tables = [html.table(head, rows, label) for label, head, rows in layer_tables(signals)]
        tables.append(html.table(["", "value"], scalars(signals)))
        parts.append(html.details(name, tables))
    rows = [[r.name, r.definition, r.unit, r.source] for r in measured]
    parts += [
        html.heading("Definitions"),
        html.table(["statistic", "definition", "unit", "source"], rows),
    ]
    return html.page(title, parts)


def _section(row: Statistic, found: Found) -> list[html.Html]:
    parts = [html.heading(row.label.capitalize())]
    drawn = figure_of(row, found)
    if drawn is None:
        parts.append(html.paragraph("Not drawn: pip install 'resnorm_jax[plots]'"))
    else:
        caption = f"{row.label.capitalize()}: {row.definition}"
        parts.append(html.figure(drawn, caption, row.how_to_read))
    theory = [[name, p.equation, p.setup, p.source] for name in found
              for p in predictions(row.name, name)]  # fmt: skip
    if theory:
        header = ["arrangement", "theory (dotted)", "set-up", "source"]
        parts.append(html.table(header, theory))
    return parts


def write_signals(found: Found, directory: Path, title: str, about: str, config: Any) -> None:
    """Write ``signal.html`` and ``signal.json``."""
    document = {
        "about": about,
        "config": config,
        "statistics": {r.name: {"definition": r.definition, "unit": r.unit, "axis": r.axis,
                                "source": r.source} for r in STATISTICS.rows()},
        "arrangements": {
            name: {**signals.to_json(), "summary": summary(signals)}
            for name, signals in found.items()
        },
    }  # fmt: skip
    write_json(directory / "signal.json", document)
    html.write_page(directory / "signal.html", signal_page(found, title, about))
