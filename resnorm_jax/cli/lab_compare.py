"""``resnorm lab compare``: train a grid, and say what each arrangement is worth at each depth."""

import os
from pathlib import Path

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import arrangement_names, depths, numbers, read_config
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.sizes import STEPS

DEFAULT = "digits"


def main(argv: list[str]) -> int:
    """Train, or go on with, a grid; write its tables, figures and page."""
    parser = Parser(
        prog="resnorm lab compare",
        description="Train arrangements x depths x seeds x learning rates under one config. Killed "
        "at any moment and started again with the same command, it goes on.",
    )
    parser.add_argument("--config", default=DEFAULT, help="CONFIG[:ARGUMENT], as resnorm train's")
    parser.add_argument(
        "--arrangements", default="usual", help="names by comma, `usual` (the default) or `all`"
    )
    parser.add_argument("--depths", default="", help="numbers of layers by comma; the config's")
    parser.add_argument(
        "--learning-rates", default="", help="peak learning rates by comma; the config's"
    )
    parser.add_number("--steps", int, STEPS, help="updates of each run; the config's")
    parser.add_argument("--output", type=Path, required=True, help="folder of the grid")
    chosen = parser.parse_args(argv)
    claimed = os.path.exists(chosen.output / "grid.json")  # a grid found there goes on
    check_folder("--output", chosen.output, () if claimed else None)
    names = arrangement_names(chosen.arrangements)
    layers, rates = depths(chosen.depths), numbers("--learning-rates", chosen.learning_rates)
    config = read_config(chosen.config)
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
    grid = make_grid(config, dataset, names, layers, rates, chosen.steps)
    console.print(data_line(dataset), highlight=False)
    cells = len(grid.cells)
    console.print(f"{cells} programs, {cells * grid.runs} runs of {grid.steps} steps")
    records = run_grid(grid, dataset, chosen.output, console)
    report(grid, dataset, records, chosen.output, console)
    return 0
