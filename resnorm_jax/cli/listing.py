"""``resnorm list [WHAT]``: what can be named, from the same tables that the code runs on."""

import ast
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resnorm_jax import arrangements, norms
from resnorm_jax.cli.arguments import Parser
from resnorm_jax.data import SOURCES
from resnorm_jax.data.series import bundled_names
from resnorm_jax.errors import UserError
from resnorm_jax.ops.streams import STREAMS
from resnorm_jax.training.optimizers import ALGORITHMS, SCHEDULES

SERIES = "series"
Rows = list[tuple[str, ...]]


def _arrangements() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (r.name + "".join(f"\n= {a}" for a in r.aliases), r.equation, r.source)
        for r in arrangements.rows()
    ]
    return ("arrangement", "equation", "source"), rows


def _streams() -> tuple[tuple[str, ...], Rows]:
    return ("stream", "write", "source"), [(r.name, r.equation, r.source) for r in STREAMS.rows()]


def _norms() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (
            r.name,
            r.equation,
            "" if r.epsilon is None else f"{r.epsilon:g}",
            r.source + (f"; used by {r.used_by}" if r.used_by else ""),
        )
        for r in norms.rows()
    ]
    return ("norm", "equation", "epsilon", "source"), rows


def _data() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (r.name, r.summary + _names(r.name), f"[{r.extra}]" if r.extra else "", r.citation)
        for r in SOURCES.values()
    ]
    return ("data source", "what", "extra", "source"), rows


def _names(source: str) -> str:
    if source != SERIES:
        return ""
    try:
        return ": " + ", ".join(bundled_names())
    except UserError:  # the extra is not installed
        return ""


def _optimizers() -> tuple[tuple[str, ...], Rows]:
    rows: Rows = [
        (r.name, ", ".join(f"{k}={v:g}" for k, v in r.defaults.items()), r.source)
        for r in ALGORITHMS.values()
    ]
    return ("optimizer", "reads", "source"), [*rows, ("schedules", ", ".join(SCHEDULES), "")]


def _configs() -> tuple[tuple[str, ...], Rows]:
    files = sorted(Path("configs").glob("*.py"))
    rows: Rows = [(f.as_posix(), first_line(f)) for f in files]
    return ("config", "what"), rows or [("", "no folder configs here")]


def first_line(path: Path) -> str:
    """Return the first line of a file's docstring, without running the file."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


TABLES: dict[str, Callable[[], tuple[tuple[str, ...], Rows]]] = {
    "arrangements": _arrangements,
    "streams": _streams,
    "norms": _norms,
    "data": _data,
    "optimizers": _optimizers,
    "configs": _configs,
}


def markdown_table(what: str, names: Iterable[str]) -> str:
    """Return a table as Markdown, with the rows of these names: the README's is made by this."""
    columns, rows = TABLES[what]()
    wanted = set(names)
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for first, *rest in rows:
        if first.partition("\n")[0] in wanted:
            name = "`" + first.replace("\n= ", "`, `") + "`"
            lines.append(" | ".join([name, *(cell.replace("|", "\\|") for cell in rest)]))
    return "".join(f"| {line} |\n" for line in lines)


def main(argv: list[str]) -> int:
    """Print the tables asked for, or all."""
    parser = Parser(prog="resnorm list", description="What can be named, with its source.")
    parser.add_argument("what", nargs="?", choices=list(TABLES), help="one table; all if left out")
    chosen = parser.parse_args(argv).what
    console = Console()
    for name in [chosen] if chosen else TABLES:
        columns, rows = TABLES[name]()
        table = Table(*columns, show_lines=True)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
    return 0
