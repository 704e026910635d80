"""``resnorm lab article``: the article's listings, numbers and claims, measured."""

import argparse
import sys
import time
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import add_output
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError
from resnorm_jax.schema import between

FILES, FOLDER = ("report.html", "report.json"), Path("resnorm-article")


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the arguments."""
    parser = Parser(
        prog="resnorm lab article",
        description="Reproduce the article: one HTML report with figures, and the same as JSON.",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether all of it runs")
    # At least 2, so that there is a band.
    parser.add_number(
        "--seeds", int, between(2, 10**6), metavar="N",
        help="how many runs of the random-batch training; 100 if left out",
    )  # fmt: skip
    add_output(parser, " and ".join(FILES), str(FOLDER))
    chosen = parser.parse_args(argv)
    chosen.output = chosen.output or FOLDER
    return chosen


def main(argv: list[str]) -> int:
    """Run the experiments and write the report; return the exit status."""
    arguments = parse(argv)
    check_folder("--output", arguments.output, FILES)
    if find_spec("matplotlib") is None:  # said now, not after a quarter of an hour
        raise UserError(
            "lab article: its report is figures, and matplotlib is not installed; run: "
            "pip install 'resnorm_jax[plots]'"
        )
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.lab.article import report
        from resnorm_jax.lab.article.sections import PARTS
        from resnorm_jax.lab.article.settings import QUICK, Settings
        from resnorm_jax.reporting.progress import Progress
        from resnorm_jax.reporting.tables import runtime_line

    settings = QUICK if arguments.quick else Settings()
    if arguments.seeds is not None:
        settings = replace(settings, seeds=arguments.seeds)
    keep_programs()
    console, began = Console(), time.monotonic()
    console.print(runtime_line(), markup=False, highlight=False, soft_wrap=True)
    with Progress("article", len(PARTS), console=console) as progress:

        def told(step: int, title: str) -> None:
            progress.print(f"{time.monotonic() - began:6.0f} s  {title}")
            progress.update(step)

        found = report.run(settings, told)
    about = {
        "environment": runtime_line(), "settings": asdict(settings),
        "seconds": time.monotonic() - began,
    }  # fmt: skip
    rows = report.write(arguments.output, found, about)
    _show(rows, console)
    for name in FILES:
        console.print(str(arguments.output / name), markup=False, highlight=False, soft_wrap=True)
    return 0


def _show(rows: list[dict], console) -> None:
    from rich.table import Table

    table = Table("", "claim", "section", "verdict")
    for row in rows:
        table.add_row(row["id"], row["claim"], row["section"], row["verdict"])
    console.print(table, markup=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
