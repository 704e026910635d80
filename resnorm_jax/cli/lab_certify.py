"""``resnorm lab certify``: which arrangements will train, told without training."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import (
    add_arrangements,
    add_config,
    add_output,
    arrangement_names,
    deprecated,
    read_config,
)
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError
from resnorm_jax.sizes import SIZES

DEFAULT = "digits"


def main(argv: list[str]) -> int:
    """Rank arrangements for a config; with --against, also say how right the ranking was."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    if chosen.old_config is not None:
        new = f"--config={chosen.old_config}"
        if chosen.config is not None:
            raise UserError(f"--config: given twice; write {new} alone")
        deprecated("resnorm lab certify", "a config without --config", new)
    names = arrangement_names(chosen.arrangements or "usual")
    if chosen.output is not None:
        check_folder("--output", chosen.output)
    config = read_config(chosen.config or chosen.old_config or DEFAULT)
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        from resnorm_jax.lab.certify.run import with_model
        from resnorm_jax.lab.compare.grid import read_grid

    grids = [read_grid(folder)[1] for folder in chosen.against]
    if chosen.depth is not None:
        config = with_model(config, depth=chosen.depth)
    _certify(config, names, grids, chosen.output)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm lab certify",
        description="Rank arrangements for a model, a depth and data by what sixteen undone steps of "
        "the optimizer do at initialization. Two to three minutes for the usual ones on two cores.",
    )
    parser.add_argument("old_config", nargs="?", help=argparse.SUPPRESS)  # for a release
    add_config(parser, DEFAULT)
    add_arrangements(parser, "usual if left out")
    parser.add_number(
        "--depth", int, SIZES["depth"], metavar="N", help="layers; the config's if left out"
    )
    parser.add_argument(
        "--against", type=Path, action="append", default=[], metavar="FOLDER",
        help="of resnorm lab compare, with this depth: check the ranking; may be repeated",
    )  # fmt: skip
    add_output(parser, "certify.html and certify.json")
    return parser


def _certify(config: Any, names: Sequence[str], grids: Sequence[Any], output: Path | None) -> None:
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.lab.certify import report
        from resnorm_jax.lab.certify.check import agreement
        from resnorm_jax.lab.certify.run import as_records, certify, make_case
        from resnorm_jax.reporting.progress import Progress
        from resnorm_jax.reporting.tables import runtime_line
        from resnorm_jax.training.run_data import data_line, prepare_data

    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    dataset = prepare_data(config)
    depth = config.model.depth
    case = make_case(config, dataset)
    what = f"{data_line(dataset)}; {depth} layers, width {config.model.width}"
    console.print(what, highlight=False, soft_wrap=True)
    with Progress("certify", len(names), console=console) as progress:
        done: list[str] = []

        def told(name: str) -> None:
            done.append(name)
            progress.update(len(done))

        found = certify(case, names, told)
    records = as_records([c for c, _ in found])
    report.print_table(records, console)
    checked = [agreement([c for c, _ in found], grid, depth) for grid in grids]
    for each in checked:
        report.print_agreement(each, console)
    if output is not None:
        chance = math.log(case.classes)
        by_step = {c.name: (p.loss.mean(0) / chance).tolist() for c, p in found}
        document = {
            "what": what,
            "certificates": records,
            "loss_by_step": by_step,
            "agreement": checked,
        }
        report.write(document, output, console)
