"""``resnorm lab theory``: published results on signal propagation, measured again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import add_only, add_output
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.schema import between

if TYPE_CHECKING:
    from rich.console import Console

RECORDS, PAGE, FOLDER = "theory.json", "theory.html", Path("resnorm-theory")


def main(argv: list[str]) -> int:
    """Measure the claims asked for; print the table, write the records and the page."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    output = chosen.output or FOLDER
    if chosen.list:
        parser.not_read(chosen, ["output", "seeds"], "with --list")
    else:
        check_folder("--output", output, (RECORDS, PAGE))
    # Imported here: --help should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.lab.theory.table import choose

    claims = choose(chosen.only)
    console = Console()
    if chosen.list:
        for claim in claims:
            _say(console, f"{claim.id:<28} {claim.statement}")
        return 0
    try:
        document = _measure(claims, chosen.seeds, output, console)
    except KeyboardInterrupt:
        _say(console, f"interrupted; what was measured is in {output / RECORDS}")
        return 130
    _finish(document, output, console)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm lab theory",
        description="Measure published results on signal propagation again: claim, source, band, "
        "measured, verdict. All of them take about ten minutes on two cores.",
    )
    add_only(parser, "claims, as --list names them")
    parser.add_number(
        "--seeds", int, between(1, 10**6), metavar="N",
        help="how many for every claim; its own number if left out",
    )  # fmt: skip
    add_output(parser, f"{PAGE} and {RECORDS}", str(FOLDER))
    parser.add_argument("--list", action="store_true", help="print the claims, measure nothing")
    return parser


def _measure(claims: Any, seeds: int | None, output: Path, console: "Console") -> dict[str, Any]:
    with ending_at_once():
        from resnorm_jax.lab.theory.report import measured_words
        from resnorm_jax.lab.theory.run import measure_all
        from resnorm_jax.reporting.environment import busy_note
        from resnorm_jax.reporting.files import write_json
        from resnorm_jax.reporting.progress import Progress
        from resnorm_jax.reporting.tables import runtime_line

    keep_programs()
    _say(console, runtime_line(), busy_note())
    # Steps are estimated seconds, so that the time left is right where claims differ a hundredfold.
    costs = {claim.id: max(1, round(claim.seconds)) for claim in claims}
    total = sum(costs.values())
    with Progress("claims", total, console=console, interval=0, rate=False) as progress:
        progress.update(0)
        spent = 0

        def done(row: dict[str, Any], document: dict[str, Any]) -> None:
            nonlocal spent
            spent += costs[row["id"]]
            write_json(output / RECORDS, document)
            progress.print(f"{row['verdict']:<15} {row['id']:<28} {measured_words(row)}")
            progress.update(spent)

        return measure_all(claims, seeds, done)


def _finish(document: dict[str, Any], output: Path, console: "Console") -> None:
    from resnorm_jax.lab.theory.report import page, print_table
    from resnorm_jax.reporting.files import write_json
    from resnorm_jax.reporting.html import write_page

    print_table(document, console)
    write_json(output / RECORDS, document)
    write_page(output / PAGE, page(document))
    _say(console, f"records  {output / RECORDS}", f"page     {output / PAGE}")


def _say(console: "Console", *lines: str | None) -> None:
    for line in filter(None, lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
