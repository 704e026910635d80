"""``resnorm bench``: speed, memory, compile time and accuracy, beside named peers, in one run."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from resnorm_jax.cli.errors import guarded

DIGITS, DEPTH = "digits", "depth"


def main(argv: list[str]) -> int:
    """Run ``resnorm bench`` with these arguments (the command's own name left out)."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.norms and arguments.only != DIGITS:
        parser.error("--norms goes with --only=digits")
    if arguments.arrangements and arguments.only != DEPTH:
        parser.error("--arrangements goes with --only=depth")
    command = {DIGITS: _digits, DEPTH: _depth}.get(arguments.only, _bench)
    return guarded(lambda: command(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="resnorm bench",
        description="Measure this library beside flax.linen and torch: ratios under 1 are in favor "
        "of this library. About three minutes on two cores.",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32",
        help="of the norms' input and of the model's computation (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=("norm", "step", "accuracy", "memory", DIGITS, DEPTH),
        help="measure only this; digits, which is not measured otherwise, trains a small classifier "
        "with every norm: about ten seconds each; nor depth: compile time, step time and memory at 10, "
        "100 and 1000 layers, about ten minutes",
    )  # fmt: skip
    parser.add_argument(
        "--norms", type=lambda text: text.split(","), metavar="A,B",
        help="with --only=digits: these norms (default: all of `resnorm list norms`)",
    )  # fmt: skip
    parser.add_argument(
        "--arrangements", type=lambda text: tuple(text.split(",")), metavar="A,B",
        help="with --only=depth: these arrangements (default: those made for a thousand layers)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that all runs, times mean nothing"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="file of the results (default: resnorm-bench-<backend>.json, or resnorm-digits-...)",
    )  # fmt: skip
    return parser


def _bench(arguments: argparse.Namespace) -> None:
    # Imported here: --help should not wait for jax.
    from resnorm_jax.bench import report
    from resnorm_jax.bench.run import SECTIONS, Settings, busy_note, measure_all, quick_settings
    from resnorm_jax.reporting.files import write_json
    from resnorm_jax.reporting.tables import runtime_line

    tables: dict[str, Callable[[Any, Console], None]] = {
        "norm": report.norm_table,
        "step": report.step_table,
        "accuracy": report.accuracy_table,
        "memory": report.cost_tables,
    }
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
    output = arguments.output or Path(f"resnorm-bench-{document['backend']}.json")
    write_json(output, document)
    _say(console, f"results  {output}")


def _digits(arguments: argparse.Namespace) -> None:
    from resnorm_jax import norms
    from resnorm_jax.bench.digits import QUICK, digits
    from resnorm_jax.bench.report import digits_table
    from resnorm_jax.bench.run import busy_note, environment
    from resnorm_jax.reporting.files import write_json
    from resnorm_jax.reporting.tables import runtime_line

    names = [norms.get(name).name for name in arguments.norms or norms.names()]
    console = Console()
    _say(console, runtime_line(), busy_note())
    settings = f"precision={arguments.dtype}" + (f",{QUICK}" if arguments.quick else "")
    found = digits(names, settings, console)
    document = {**environment(), DIGITS: found}
    digits_table(found, console)
    output = arguments.output or Path(f"resnorm-digits-{document['backend']}.json")
    write_json(output, document)
    _say(console, f"results  {output}")


def _depth(arguments: argparse.Namespace) -> None:
    from dataclasses import replace

    from resnorm_jax import arrangements
    from resnorm_jax.bench.depth import QUICK, Depths, depth_costs
    from resnorm_jax.bench.report import depth_table
    from resnorm_jax.bench.run import busy_note, environment
    from resnorm_jax.reporting.files import write_json
    from resnorm_jax.reporting.tables import runtime_line

    settings = QUICK if arguments.quick else Depths()
    if arguments.arrangements:
        names = tuple(arrangements.get(name).name for name in arguments.arrangements)
        settings = replace(settings, arrangements=names)
    console = Console()
    _say(console, runtime_line(), busy_note())
    found: list[dict[str, Any]] = []
    with console.status("starting") as status:
        for row in depth_costs(settings, status.update):
            found.append(row)
            _say(console, None if console.is_terminal else f"{row['arrangement']} {row['depth']}")
    document = {**environment(), DEPTH: found}
    depth_table(found, console)
    output = arguments.output or Path(f"resnorm-depth-{document['backend']}.json")
    write_json(output, document)
    _say(console, f"results  {output}")


def _say(console: Console, *lines: str | None) -> None:
    for line in filter(None, lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
