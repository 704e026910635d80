"""``resnorm lab signal``: what flows through a model, layer by layer."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.cli.train import DEFAULT
from resnorm_jax.config_file import read_config
from resnorm_jax.errors import UserError
from resnorm_jax.schema import KEY_SEED, POSITIVE

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

    only = _names(chosen.only, STATISTICS.get, STATISTICS.names())
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
    parser.add_argument("run", type=Path, nargs="?", help="run directory; a config if left out")
    parser.add_argument("--config", help=f"CONFIG[:ARGUMENT], as resnorm train's; {DEFAULT}")
    parser.add_argument("--arrangements", default="", help="A,B,..., or all; the config's own")
    parser.add_argument("--only", default="", help="statistics A,B,...; all if left out")
    parser.add_number("--rows", int, POSITIVE, default=4, help="examples for the Jacobian")
    parser.add_number("--seed", int, KEY_SEED, help="the config's; of a run, which checkpoint")
    parser.add_argument("--checkpoint", choices=("best", "last"), help="of a run; as scored")
    parser.add_argument("--output", type=Path, help="new directory for signal.html and .json")
    return parser


def _names(text: str, get, everything: tuple[str, ...]) -> list[str]:
    if text == "all":
        return list(everything)
    given = [name.strip() for name in text.split(",") if name.strip()]
    return list(dict.fromkeys(get(name).name for name in given))


def _subjects(chosen: argparse.Namespace) -> "list[Subject]":
    with ending_at_once():
        from resnorm_jax import arrangements
        from resnorm_jax.config import from_dict
        from resnorm_jax.lab.signals.run import subjects, trained_subject

    names = _names(chosen.arrangements, arrangements.get, arrangements.names())
    if chosen.run is not None:
        if names or chosen.config:
            option = "--arrangements" if names else "--config"
            raise UserError(f"{option}: not read: a run has its own; leave out one of the two")
        return [trained_subject(chosen.run, chosen.seed, chosen.checkpoint)]
    if chosen.checkpoint:
        raise UserError("--checkpoint: not read without a run directory")
    config = read_config(chosen.config or DEFAULT)
    if chosen.seed is not None:
        config.seed = chosen.seed
    return subjects(from_dict(config.to_dict()), names)


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
