"""The benchmark's tables but for speed: accuracy, compiled programs, training, depth."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = Mapping[str, Any]


def cost_tables(section: Row, console: Console) -> None:
    """Print what the compiled programs say, and the time that compiling takes."""
    table = _table(
        "Compiled programs", "", "MB\naccessed", "MB\ntemporary", "ours", "ours/\npeer\naccessed",
        "ours/\npeer\ntemporary",
    )  # fmt: skip
    for row in section["norms"]:
        _costs(table, f"{row['norm']} {_shape(row['shape'])}", row)
    _costs(table, "training step", section["step"])
    console.print(table)
    compiling = section["compile"]
    table = _table("Compile time, scanned training step", "layers", "trace s", "compile s", "total")
    for row in compiling["rows"]:
        seconds = [f"{row[key]:.2f}" for key in ("trace", "compile", "total")]
        table.add_row(str(row["depth"]), *seconds)
    table.add_section()
    table.add_row("ratio", "", "", f"{compiling['ratio']:.2f}")
    console.print(table)


def accuracy_table(rows: Sequence[Row], console: Console) -> None:
    """Print the largest errors; a star marks the best, and who equals it but for rounding."""
    names = list(rows[0]["errors"])
    heads = [name.replace(" ", "\n") for name in names]
    title = f"Largest error of layer norm against float64, {rows[0]['draws']} draws (* best)"
    table = _table(title, "dtype", "mean", *heads)
    for row in rows:
        cells = [
            f"[bold]{_power(row['errors'][name])}*[/bold]"
            if name in row["best"]
            else f"{_power(row['errors'][name])} "
            for name in names
        ]
        table.add_row(row["dtype"], _power(row["mean"], 0), *cells)
    console.print(table)
    _skipped(rows, console)


def trained_table(section: Row, console: Console) -> None:
    """Print what came of each row: accuracy, time, and who diverged or failed, with the reason."""
    table = _table(
        f"{section['data']}, one recipe for all", section["menu"], "layers", "test\naccuracy", "sd",
        "least", "step\nms", "status",
    )  # fmt: skip
    for row in section["rows"]:
        shares = [_percent(row[key]) for key in ("accuracy", "sd", "least")]
        table.add_row(
            row["name"], str(row["depth"]), *shares, _number(row["step_ms"]), row["status"]
        )
    table.add_section()
    table.add_row("majority class", "", _percent(section["majority"]))
    console.print(table)
    for row in section["rows"]:
        if row["why"]:
            console.print(f"{row['name']}: {row['why']}", markup=False, highlight=False)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def depth_table(rows: Sequence[Row], console: Console) -> None:
    """Print what depth costs: a line for each arrangement, policy and depth."""
    table = _table(
        "Training step by depth", "", "remat", "layers", "compile\ns", "of the\nleast", "step\ns",
        "MB of\nactivations", "finite",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row["arrangement"], row["remat"], str(row["depth"]), f"{row['compile']:.2f}",
            f"{row['ratio']:.2f}", f"{row['step']:.3g}", _number(row["activation_bytes"], 1e-6),
            "yes" if row["finite"] else "NO",
        )  # fmt: skip
    console.print(table)


_COSTS = ("bytes_accessed", "temporary_bytes")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        left = column in ("", "ours", "dtype", "norm", "status")
        table.add_column(Text(column), justify="left" if left else "right", no_wrap=True)
    return table


def _costs(table: Table, program: str, row: Row) -> None:
    table.add_row(program, style="bold")
    for name, costs in row["programs"].items():
        first = [name, *(_number(costs[key], 1e-6) for key in _COSTS)]
        _add(table, first, name, row["ratios"], lambda ratio: [_number(ratio[k]) for k in _COSTS])
    table.add_section()


def _add(
    table: Table, first: list[str], name: str, ratios: Iterable[Row],
    cells: Callable[[Row], list[str]],
) -> None:  # fmt: skip
    """Add a peer's line, and one more for each further variant of ours that it is compared with."""
    compared = [ratio for ratio in ratios if ratio["peer"] == name]
    if not compared:
        table.add_row(*first)
    for ratio in compared:
        table.add_row(*first, ratio["ours"].removeprefix("ours "), *cells(ratio))
        first = [""] * len(first)


def _number(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.2f}"


def _power(value: float, digits: int = 1) -> str:
    """Format as 5.8e-7: room for six peers in eighty columns."""
    return f"{value:.{digits}e}".replace("e-0", "e-").replace("e+0", "e") if value else "0"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _skipped(rows: Iterable[Row], console: Console) -> None:
    notes = {f"{n}: skipped: {why}" for row in rows for n, why in row["skipped"].items()}
    for note in sorted(notes):
        console.print(note, markup=False, highlight=False)


TABLES: dict[str, Callable[[Any, Console], None]] = {
    "accuracy": accuracy_table,
    "memory": cost_tables,
    "digits": trained_table,
    "vowels": trained_table,
    "depth": depth_table,
}
