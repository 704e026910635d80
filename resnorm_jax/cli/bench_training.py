"""``resnorm bench --only=digits``, ``vowels`` or ``depth``: tables that train, or that go deep."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once

if TYPE_CHECKING:
    from rich.console import Console

TABLES, DEPTH = ("digits", "vowels"), "depth"


def trained(arguments: argparse.Namespace) -> None:
    """Train a small classifier with every row of a menu; a table that was begun goes on."""
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.bench.report import trained_table
        from resnorm_jax.bench.training_table import MENUS, QUICK, earlier_rows, train_table
        from resnorm_jax.errors import check_choice
        from resnorm_jax.reporting.environment import busy_note, environment
        from resnorm_jax.reporting.files import write_json
        from resnorm_jax.reporting.tables import runtime_line

    data = arguments.only
    menu = arguments.over or ("norm" if data == TABLES[0] else "arrangement")
    choices = MENUS[menu]()
    names = [check_choice("--names", name, choices) for name in arguments.names or choices]
    output = _results_file(arguments, f"{data}-{menu}")
    if not output.is_file():  # a table that was begun there goes on
        check_file("--output", output)
    console = Console()
    say(console, runtime_line(), busy_note())
    settings = f"precision={arguments.dtype or 'float32'}" + (
        f",{QUICK}" if arguments.quick else ""
    )
    about = environment()
    known = earlier_rows(output, data, menu, settings)
    say(console, f"{len(known)} rows are in {output} already" if known else None)

    def save(table: dict[str, Any]) -> None:
        write_json(output, {**about, data: table})

    found = train_table(data, menu, names, settings, console, known, save)
    trained_table(found, console)
    save(found)
    say(console, f"results  {output}")


def depth(arguments: argparse.Namespace) -> None:
    """Measure what depth costs."""
    with ending_at_once():
        from dataclasses import replace

        from rich.console import Console

        from resnorm_jax import arrangements
        from resnorm_jax.bench.depth import QUICK, Depths, depth_costs
        from resnorm_jax.bench.report import depth_table
        from resnorm_jax.reporting.environment import busy_note, environment
        from resnorm_jax.reporting.files import write_json
        from resnorm_jax.reporting.tables import runtime_line

    settings = QUICK if arguments.quick else Depths()
    if arguments.names:
        names = tuple(arrangements.get(name).name for name in arguments.names)
        settings = replace(settings, arrangements=names)
    output = _results_file(arguments, "depth")
    check_file("--output", output)
    console = Console()
    say(console, runtime_line(), busy_note())
    found: list[dict[str, Any]] = []
    with console.status("starting") as status:
        for row in depth_costs(settings, status.update):
            found.append(row)
            say(console, None if console.is_terminal else f"{row['arrangement']} {row['depth']}")
    document = {**environment(), DEPTH: found}
    depth_table(found, console)
    write_json(output, document)
    say(console, f"results  {output}")


def _results_file(arguments: argparse.Namespace, name: str) -> Path:
    """Return the file of the results."""
    with ending_at_once():
        import jax

    return arguments.output or Path(f"resnorm-{name}-{jax.default_backend()}.json")


def say(console: "Console", *lines: str | None) -> None:
    """Print lines as they are; None is none."""
    for line in filter(None, lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
