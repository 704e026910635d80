"""``resnorm lab surgery RUN --to=norm=rms``: another norm or arrangement for a trained model."""

from typing import Any

from rich.console import Console
from rich.table import Table

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import add_output, add_run
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.lab.surgery.change import Change, read_change
from resnorm_jax.lab.surgery.distill import Recipe
from resnorm_jax.lab.surgery.measure import Patient, operate
from resnorm_jax.lab.surgery.page import COLUMNS, page, rows
from resnorm_jax.reporting import html
from resnorm_jax.reporting.files import write_json
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.reporting.tables import runtime_line
from resnorm_jax.schema import from_zero, over_zero
from resnorm_jax.sizes import RATE
from resnorm_jax.training.recipe import whole
from resnorm_jax.training.run_data import baselines, padded_lengths
from resnorm_jax.training.saved_run import load_trained

FILES = ("surgery.html", "surgery.json")
STEPS = 200
DISTILLING = ("temperature", "hidden", "learning_rate")  # read with steps alone


def main(argv: list[str]) -> int:
    """Change a run's model, let it learn from the unchanged one, score both; write a page and JSON."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    change = read_change(chosen.to, chosen.widen)
    if not chosen.steps:
        parser.not_read(chosen, DISTILLING, "with --steps=0")
    folder = check_folder("--output", chosen.output or chosen.run / "surgery", FILES)
    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    report = measure(chosen, change, console)
    write_json(folder / FILES[1], report)
    html.write_page(folder / FILES[0], page(report))
    show(report, console)
    console.print("\n".join(str(folder / name) for name in FILES), highlight=False)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm lab surgery",
        description="Give a trained model another norm or arrangement, and measure what that costs.",
    )
    add_run(parser)
    parser.add_argument(
        "--to", required=True, metavar="WHAT", help="norm=NAME or arrangement=NAME: what is changed"
    )
    parser.add_argument(
        "--widen", action="store_true",
        help="norm=rms of Post-LN: more hidden units, with which it is exact",
    )  # fmt: skip
    parser.add_number(
        "--steps", int, from_zero(10**7), default=STEPS, metavar="N",
        help=f"updates in which the changed model learns from the unchanged one ({STEPS})",
    )  # fmt: skip
    parser.add_number(
        "--seeds", int, over_zero(1000), default=1, metavar="N", help="how many; 1 if left out"
    )
    parser.add_number(
        "--learning-rate", float, RATE, metavar="R", help="largest; the run's if left out"
    )
    parser.add_number(
        "--temperature", float, over_zero(1e3), default=1.0, metavar="T",
        help="of the probabilities that are compared (1)",
    )  # fmt: skip
    parser.add_number(
        "--hidden", float, from_zero(1e6), default=0.0, metavar="W",
        help="weight of the error of the pooled vectors (0)",
    )  # fmt: skip
    add_output(parser, " and ".join(FILES), "RUN/surgery")
    return parser


def measure(chosen: Any, change: Change, console: Console) -> dict[str, Any]:
    """Return the report: every score, and what it was scored on."""
    trained = load_trained(chosen.run, chosen.seed, chosen.checkpoint)
    change.config(trained.config)  # before the data are read
    dataset = trained.one_label("resnorm lab surgery")
    buckets = padded_lengths(trained.config, dataset, trained.identity)
    patient = Patient(trained.config, trained.meta, trained.variables, dataset, buckets)
    optimizer = whole(trained.config.optimizer, chosen.learning_rate)
    recipe = Recipe(chosen.steps, optimizer, chosen.temperature, chosen.hidden)
    with Progress("surgery", max(1, chosen.steps * chosen.seeds), console=console) as progress:
        patient.told = progress.update
        found = operate(patient, change, recipe, chosen.seeds)
    model = trained.config.model
    return {
        "title": f"{trained.meta['name']}, {model.arrangement}, norm {model.norm}: {change}",
        "run": str(chosen.run),
        "checkpoint": trained.kind,
        "step": trained.step,
        "steps": chosen.steps,
        "seeds": chosen.seeds,
        "learning_rate": optimizer.learning_rate,
        "temperature": chosen.temperature,
        "hidden": chosen.hidden,
        "test_rows": len(dataset.test),
        "majority": baselines(dataset, "test")["majority class"],
        **found,
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table of all stages."""
    table = Table(title=f"{report['title']}: {report['test_rows']} test rows")
    table.add_column("model", no_wrap=True)
    for _, label, _ in COLUMNS:
        table.add_column(label, justify="right")
    for row in rows(report):
        table.add_row(*row)
    console.print(table)
    console.print(f"{report['change']}: {report['how']}", highlight=False, soft_wrap=True)
