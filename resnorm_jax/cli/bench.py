"""``resnorm bench``: speed, memory, compile time and accuracy, beside named peers, in one run."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.errors import guarded
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once

if TYPE_CHECKING:
    from rich.console import Console

TABLES, DEPTH = ("digits", "vowels"), "depth"
MENUS = ("norm", "arrangement", "stream")


def main(argv: list[str]) -> int:
    """Run ``resnorm bench`` with these arguments (the command's own name left out)."""
    return guarded(lambda: _main(argv))


def _main(argv: list[str]) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.only not in (*TABLES, DEPTH):
        parser.not_read(arguments, ["names"], "without --only=digits, vowels or depth")
    if arguments.only not in TABLES:
        parser.not_read(arguments, ["over"], "without --only=digits or vowels")
    if arguments.only == DEPTH:
        parser.not_read(arguments, ["dtype"], "with --only=depth")
    commands = {DEPTH: _depth, **dict.fromkeys(TABLES, _trained)}
    commands.get(arguments.only, _bench)(arguments)


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm bench",
        description="Measure this library beside flax.linen and torch: ratios under 1 are in favor "
        "of this library. About three minutes on two cores.",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32",
        help="of the norms' input and of the model's computation (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=("norm", "step", "accuracy", "memory", *TABLES, DEPTH),
        help="measure only this. Not measured otherwise: digits and vowels, which train a small "
        "classifier with every norm, arrangement or stream, ten seconds to a minute each; and depth, "
        "the cost of 10, 100 and 1000 layers, about ten minutes",
    )  # fmt: skip
    parser.add_argument(
        "--over", choices=MENUS,
        help="with --only=digits or vowels: what is compared (default: norm for digits, arrangement "
        "for vowels)",
    )  # fmt: skip
    parser.add_argument(
        "--names", type=lambda text: tuple(text.split(",")), metavar="A,B",
        help="with --only=digits or vowels: only these; with --only=depth: these arrangements "
        "(default: those made for a thousand layers)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that all runs, times mean nothing"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="file of the results (default: resnorm-bench-<backend>.json)",
    )  # fmt: skip
    return parser


def _bench(arguments: argparse.Namespace) -> None:
    # Imported here, as below: --help should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.bench import report
        from resnorm_jax.bench.run import SECTIONS, Settings, measure_all, quick_settings
        from resnorm_jax.reporting.environment import busy_note
        from resnorm_jax.reporting.files import write_json
        from resnorm_jax.reporting.tables import runtime_line

    tables: dict[str, Callable[[Any, Console], None]] = {
        "norm": report.norm_table,
        "step": report.step_table,
        "accuracy": report.accuracy_table,
        "memory": report.cost_tables,
    }
    output = _output(arguments, "bench")
    check_file("--output", output)
    console = Console()
    _say(console, runtime_line(), busy_note())
    settings = quick_settings(arguments.dtype) if arguments.quick else Settings(arguments.dtype)
    with console.status("starting") as status:

        def note(text: str) -> None:
            status.update(text)
            if not console.is_terminal:
                console.print(text, markup=False, highlight=False)

        def done(section: str, rows: Any) -> None:
            tables[section](rows, console)

        sections = SECTIONS if arguments.only is None else (arguments.only,)
        document = measure_all(settings, sections, note, done)
    write_json(output, document)
    _say(console, f"results  {output}")


def _trained(arguments: argparse.Namespace) -> None:
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
    output = _output(arguments, f"{data}-{menu}")
    if not output.is_file():  # a table that was begun there goes on
        check_file("--output", output)
    console = Console()
    _say(console, runtime_line(), busy_note())
    settings = f"precision={arguments.dtype}" + (f",{QUICK}" if arguments.quick else "")
    about = environment()
    known = earlier_rows(output, data, menu, settings)
    _say(console, f"{len(known)} rows are in {output} already" if known else None)

    def save(table: dict[str, Any]) -> None:
        write_json(output, {**about, data: table})

    found = train_table(data, menu, names, settings, console, known, save)
    trained_table(found, console)
    save(found)
    _say(console, f"results  {output}")


def _depth(arguments: argparse.Namespace) -> None:
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
    output = _output(arguments, "depth")
    check_file("--output", output)
    console = Console()
    _say(console, runtime_line(), busy_note())
    found: list[dict[str, Any]] = []
    with console.status("starting") as status:
        for row in depth_costs(settings, status.update):
            found.append(row)
            _say(console, None if console.is_terminal else f"{row['arrangement']} {row['depth']}")
    document = {**environment(), DEPTH: found}
    depth_table(found, console)
    write_json(output, document)
    _say(console, f"results  {output}")


def _output(arguments: argparse.Namespace, name: str) -> Path:
    """Return the file of the results."""
    with ending_at_once():
        import jax

    return arguments.output or Path(f"resnorm-{name}-{jax.default_backend()}.json")


def _say(console: "Console", *lines: str | None) -> None:
    for line in filter(None, lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
