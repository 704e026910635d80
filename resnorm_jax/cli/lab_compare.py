"""``resnorm lab compare``: train a grid, and say what each arrangement is worth at each depth."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import (
    add_arrangements,
    add_config,
    add_output,
    arrangement_names,
    depths,
    numbers,
    read_config,
)
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.schema import over_zero
from resnorm_jax.sizes import STEPS

if TYPE_CHECKING:
    from resnorm_jax.config import Config

DEFAULT, FOLDER = "digits", Path("resnorm-compare")


def main(argv: list[str]) -> int:
    """Train, or go on with, a grid; write its tables, figures and page."""
    chosen = _parser().parse_args(argv)
    output = chosen.output or FOLDER
    claimed = os.path.exists(output / "grid.json")  # a grid found there goes on
    check_folder("--output", output, () if claimed else None)
    names = arrangement_names(chosen.arrangements or "usual")
    layers, rates = depths(chosen.depths), numbers("--learning-rates", chosen.learning_rates)
    config = read_config(chosen.config or DEFAULT, seeds=chosen.seeds)
    _compare(config, (names, layers, rates, chosen.steps), output)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm lab compare",
        description="Train arrangements x depths x seeds x learning rates under one config. Killed "
        "at any moment and started again with the same command, it goes on.",
    )
    add_config(parser, DEFAULT)
    add_arrangements(parser, "usual if left out")
    own = "the config's if left out"
    parser.add_argument("--depths", default="", metavar="N,N", help=f"numbers of layers; {own}")
    parser.add_argument(
        "--learning-rates", default="", metavar="R,R", help=f"peak learning rates; {own}"
    )
    parser.add_number(
        "--seeds", int, over_zero(10**5), metavar="N", help=f"how many runs of each; {own}"
    )
    parser.add_number("--steps", int, STEPS, metavar="N", help=f"updates of each run; {own}")
    add_output(parser, "the grid, compare.html and compare.json", str(FOLDER))
    return parser


def _compare(config: "Config", axes: tuple[Any, ...], output: Path) -> None:
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.lab.compare.grid import make_grid, run_grid
        from resnorm_jax.lab.compare.report import report
        from resnorm_jax.reporting.tables import runtime_line
        from resnorm_jax.training.run_data import data_line, prepare_data

    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    dataset = prepare_data(config)
    grid = make_grid(config, dataset, *axes)
    console.print(data_line(dataset), highlight=False)
    cells = len(grid.cells)
    console.print(f"{cells} programs, {cells * grid.runs} runs of {grid.steps} steps")
    records = run_grid(grid, dataset, output, console)
    report(grid, dataset, records, output, console)
