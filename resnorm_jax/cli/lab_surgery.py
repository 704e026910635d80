"""``resnorm lab surgery RUN --to=norm=rms``: another norm or arrangement for a trained model."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import add_output, add_run
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.interop.config_json import describe_checkpoint
from resnorm_jax.lab.surgery.change import Change, read_change
from resnorm_jax.lab.surgery.checkpoint import Texts, admitted, is_checkpoint
from resnorm_jax.lab.surgery.distill import Recipe
from resnorm_jax.lab.surgery.measure import Patient, operate
from resnorm_jax.lab.surgery.page import columns, page, rows
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
# Options read with steps alone, with a run alone, and with a checkpoint alone.
DISTILLING = ("temperature", "hidden", "positions", "learning_rate")
OF_RUN = ("checkpoint",)
OF_TEXTS = ("data", "test", "text_column", "max_length", "batch_size")


def main(argv: list[str]) -> int:
    """Change a run's model, let it learn from the unchanged one, score both; write a page and JSON."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    change = read_change(chosen.to, chosen.widen)
    usual = _checked(parser, chosen)
    folder = check_folder("--output", chosen.output or usual, FILES)
    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    report = measure(chosen, change, console)
    write_json(folder / FILES[1], report)
    html.write_page(folder / FILES[0], page(report))
    show(report, console)
    console.print("\n".join(str(folder / name) for name in FILES), highlight=False)
    return 0


def _checked(parser: Parser, chosen: Any) -> Path:
    """Return the usual folder of the results; raise UserError for an option that nothing reads."""
    if not chosen.steps:
        parser.not_read(chosen, DISTILLING, "with --steps=0")
    if not is_checkpoint(chosen.run):
        parser.not_read(chosen, OF_TEXTS, "with a run, whose data are known")
        return chosen.run / "surgery"
    parser.not_read(chosen, OF_RUN, "with a checkpoint's folder")
    if chosen.data is None:
        parser.error(f"--data: not given; {chosen.run} is a checkpoint: name a file of texts")
    if describe_checkpoint(chosen.run).classes is None:
        parser.not_read(chosen, ("temperature",), "of a checkpoint without classes")
    return Path("resnorm-surgery")


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm lab surgery",
        description="Give a trained model another norm or arrangement, and measure what that costs.",
    )
    add_run(parser, help="run directory, or the folder of a Hugging Face checkpoint")
    parser.add_argument(
        "--data", metavar="FILE", help="texts for a checkpoint, as `resnorm predict` reads them"
    )
    parser.add_argument(
        "--test", metavar="FILE", help="texts to compare on; a fifth of --data if left out"
    )
    parser.add_argument(
        "--text-column", default=Texts.column, metavar="NAME", help="of both (text)"
    )
    for size, what in (("max_length", "tokens kept of a text"), ("batch_size", "texts of a batch")):
        usual = getattr(Texts, size)
        parser.add_number(
            f"--{size.replace('_', '-')}", int, over_zero(10**6), default=usual, metavar="N",
            help=f"{what} ({usual})",
        )  # fmt: skip
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
    parser.add_number(
        "--positions", float, from_zero(1e6), default=0.0, metavar="W",
        help="weight of the error of the encoder's output at all positions (0)",
    )  # fmt: skip
    add_output(parser, " and ".join(FILES), "RUN/surgery")
    return parser


def measure(chosen: Any, change: Change, console: Console) -> dict[str, Any]:
    """Return the report: every score, and what it was scored on."""
    patient, what = _patient(chosen, change)
    dataset, model = patient.dataset, patient.config.model
    optimizer = whole(patient.config.optimizer, chosen.learning_rate)
    heat = None if patient.vectors else chosen.temperature
    recipe = Recipe(chosen.steps, optimizer, heat, chosen.hidden, chosen.positions)
    with Progress("surgery", max(1, chosen.steps * chosen.seeds), console=console) as progress:
        patient.told = progress.update
        found = operate(patient, change, recipe, chosen.seeds)
    labelled = not patient.vectors and (dataset.test.y >= 0).all()
    return {
        "title": f"{patient.meta['name']}, {model.arrangement}, norm {model.norm}: {change}",
        "run": str(chosen.run),
        **what,
        "steps": chosen.steps,
        "seeds": chosen.seeds,
        "learning_rate": optimizer.learning_rate,
        "temperature": heat,
        "hidden": chosen.hidden,
        "positions": chosen.positions,
        "test_rows": len(dataset.test),
        "majority": baselines(dataset, "test")["majority class"] if labelled else None,
        **found,
    }


def _patient(chosen: Any, change: Change) -> tuple[Patient, dict[str, Any]]:
    """Return the model to be changed, and what the report says of where it is from."""
    if is_checkpoint(chosen.run):
        texts = Texts(
            chosen.data, chosen.test, chosen.text_column, chosen.max_length, chosen.batch_size
        )
        patient = admitted(chosen.run, texts, chosen.seed or 0)
        change.config(patient.config)
        said = {name: getattr(chosen, name) for name in OF_TEXTS}
        return patient, {**said, "weights_sha256": patient.config.init_sha256}
    trained = load_trained(chosen.run, chosen.seed, chosen.checkpoint)
    change.config(trained.config)  # before the data are read
    dataset = trained.one_label("resnorm lab surgery")
    buckets = padded_lengths(trained.config, dataset, trained.identity)
    patient = Patient(trained.config, trained.meta, trained.variables, dataset, buckets)
    return patient, {"checkpoint": trained.kind, "step": trained.step}


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table of all stages."""
    table = Table(title=f"{report['title']}: {report['test_rows']} test rows")
    table.add_column("model", no_wrap=True)
    for _, label, _ in columns(report):
        table.add_column(label, justify="right")
    for row in rows(report):
        table.add_row(*row)
    console.print(table)
    console.print(f"{report['change']}: {report['how']}", highlight=False, soft_wrap=True)
