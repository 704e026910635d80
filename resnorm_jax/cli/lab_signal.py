"""``resnorm lab signal``: what flows through a model, layer by layer."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import (
    add_arrangements,
    add_config,
    add_only,
    add_output,
    add_run,
    arrangement_names,
    read_config,
)
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.cli.train import DEFAULT
from resnorm_jax.errors import UserError
from resnorm_jax.schema import POSITIVE

if TYPE_CHECKING:
    from rich.console import Console

    from resnorm_jax.lab.signals.measure import Signals
    from resnorm_jax.lab.signals.run import Subject

ABOUT = """\
Measure what flows through a model, layer by layer, on one training batch: stream, branches,
attention, gradients, the Jacobian of the stack and the first optimizer step. At initialization of a
config with each arrangement, or at the checkpoint of a run."""


def main(argv: list[str]) -> int:
    """Measure, print, and write where --output says."""
    _signal(_parser().parse_args(argv))
    return 0


def _signal(chosen: argparse.Namespace) -> None:
    # Imported here, as below: --help should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.lab.signals.jacobian import JacobianOptions
        from resnorm_jax.lab.signals.report import print_signals
        from resnorm_jax.lab.signals.run import signals_of
        from resnorm_jax.lab.signals.table import STATISTICS
        from resnorm_jax.reporting.progress import Progress
        from resnorm_jax.reporting.tables import runtime_line

    only = list(dict.fromkeys(STATISTICS.get(name).name for name in chosen.only))
    if chosen.output is not None:
        check_folder("--output", chosen.output)
    given = _subjects(chosen)
    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    found: dict[str, Signals] = {}
    with Progress("signals", len(given), console=console) as progress:
        for number, subject in enumerate(given, start=1):
            options = JacobianOptions(rows=chosen.rows)
            found[subject.config.model.arrangement] = signals_of(subject, only, options)
            progress.update(number, len(subject.batch["x"]))
    print_signals(found, console)
    if chosen.output is not None:
        _write(found, given[0], chosen.output, console)


def _parser() -> Parser:
    parser = Parser(prog="resnorm lab signal", description=ABOUT)
    add_run(parser, nargs="?", help="run directory; a config's start if left out")
    add_config(parser, DEFAULT)
    add_arrangements(parser, "the config's own if left out")
    add_only(parser, "statistics")
    parser.add_number(
        "--rows", int, POSITIVE, default=4, metavar="N", help="examples for the Jacobian (4)"
    )
    add_output(parser, "signal.html and signal.json")
    return parser


def _subjects(chosen: argparse.Namespace) -> "list[Subject]":
    with ending_at_once():
        from resnorm_jax.lab.signals.run import subjects, trained_subject

    names = arrangement_names(chosen.arrangements) if chosen.arrangements else ()
    if chosen.run is not None:
        if names or chosen.config:
            option = "--arrangements" if names else "--config"
            raise UserError(f"{option}: not read: a run has its own; leave out one of the two")
        return [trained_subject(chosen.run, chosen.seed, chosen.checkpoint)]
    if chosen.checkpoint:
        raise UserError("--checkpoint: not read without a run directory")
    return subjects(read_config(chosen.config or DEFAULT, seed=chosen.seed), names)


def _write(found: "dict[str, Signals]", subject: "Subject", path: Path, console: "Console") -> None:
    from resnorm_jax.lab.signals.report import write_signals

    config, rows = subject.config, len(subject.batch["x"])
    title = f"Signals: {subject.meta['name']}, {config.model.depth} layers"
    about = (
        f"{rows} training rows of {subject.meta['name']}, width {config.model.width}, "
        f"{config.model.depth} layers, seed {config.seed}, at {subject.at}; dropout off."
    )
    write_signals(found, path, title, about, asdict(config))
    for name in ("signal.html", "signal.json"):
        console.print(str(path / name), markup=False, highlight=False, soft_wrap=True)
