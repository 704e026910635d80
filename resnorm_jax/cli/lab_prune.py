"""``resnorm lab prune RUN``: accuracy of a trained run against the share of it that is kept."""

import argparse
from typing import Any

from rich.console import Console
from rich.table import Table

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.lab_common import add_only, add_output, add_run, deprecated
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.errors import UserError, check_choice
from resnorm_jax.lab.pruning.layers import ORDERS
from resnorm_jax.lab.pruning.measure import METHODS, Plan, Subject, choosing_rows, compress
from resnorm_jax.lab.pruning.page import page
from resnorm_jax.reporting import html
from resnorm_jax.reporting.files import write_json
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.reporting.tables import runtime_line
from resnorm_jax.schema import POSITIVE, number
from resnorm_jax.training.run_data import baselines
from resnorm_jax.training.saved_run import load_trained

KEEP = "1,0.9,0.8,0.7,0.6,0.5,0.4,0.3,0.2,0.1"
FILES = ("prune.html", "prune.json")
ROWS = 1000
# Options, and the methods that read them.
READ = {"order": {"layers"}, "rows": {"layers"}, "keep": {"layers", "magnitude"}}


def main(argv: list[str]) -> int:
    """Compress a run in several ways, score each, write a page and JSON."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    names = _methods(chosen)
    unread = [option for option, methods in READ.items() if not methods & set(names)]
    parser.not_read(chosen, unread, f"with --only={','.join(names)}")
    check_choice("--order", chosen.order, [o.name for o in ORDERS])
    plan = Plan(
        [m for m in METHODS if m.name in names],
        shares(chosen.keep),
        next(o for o in ORDERS if o.name == chosen.order),
    )
    folder = check_folder("--output", chosen.output or chosen.run / "prune", FILES)
    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    report = measure(chosen, plan, console)
    write_json(folder / "prune.json", report)
    html.write_page(folder / "prune.html", page(report))
    show(report, console)
    console.print(f"{folder / 'prune.html'}\n{folder / 'prune.json'}", highlight=False)
    return 0


def _methods(chosen: Any) -> list[str]:
    """Return the names of the methods that were chosen."""
    every = [m.name for m in METHODS]
    if chosen.method is not None:
        if chosen.only:
            raise UserError("--method: not read beside --only; leave it out")
        new = "no --only" if chosen.method == "all" else f"--only={chosen.method}"
        check_choice("--method", chosen.method, [*every, "all"])
        deprecated("resnorm lab prune", "--method", new)
        chosen.only = () if chosen.method == "all" else (chosen.method,)
    return [check_choice("--only", name, every) for name in chosen.only] or every


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm lab prune",
        description="Accuracy of a trained run against the share of it that is kept.",
    )
    add_run(parser)
    add_only(parser, f"methods of {', '.join(m.name for m in METHODS)}")
    parser.add_argument("--method", help=argparse.SUPPRESS)  # for a release
    parser.add_argument("--keep", default=KEEP, metavar="S,S", help=f"shares to keep; {KEEP}")
    parser.add_argument(
        "--order",
        default=ORDERS[0].name,
        help="how layers to remove are chosen: "
        + "; ".join(f"{o.name} ({o.about})" for o in ORDERS),
    )
    parser.add_number(
        "--rows", int, POSITIVE, default=ROWS, metavar="N",
        help=f"most rows to choose layers on ({ROWS})",
    )  # fmt: skip
    add_output(parser, " and ".join(FILES), "RUN/prune")
    return parser


def shares(text: str) -> list[float]:
    """Return shares, largest first, each once.

    Raises:
      UserError: for what is not a share.
    """
    found = set()
    for part in text.split(","):
        try:
            share = number(part.strip(), float)
        except UserError:
            share = -1.0
        if not 0 <= share <= 1:
            raise UserError(f"--keep: {part.strip()!r}; give shares from 0 to 1, e.g. 1,0.5,0.1")
        found.add(share)
    return sorted(found, reverse=True)


def measure(chosen: Any, plan: Plan, console: Console) -> dict[str, Any]:
    """Return the report: every score, and what it was scored on."""
    trained = load_trained(chosen.run, chosen.seed, chosen.checkpoint)
    dataset = trained.one_label("resnorm lab prune")
    kind, rows = choosing_rows(dataset, chosen.rows, trained.config.seed)
    subject = Subject(trained, rows, dataset.test)
    with Progress("prune", plan.evaluations(subject.depth), console=console) as progress:
        subject.told = progress.update
        found = compress(subject, plan)
    seed = trained.config.seed if chosen.seed is None else chosen.seed
    return {
        "title": f"{trained.meta['name']}, {trained.config.model.arrangement}, "
        f"{subject.depth} layers, seed {seed}",
        "run": str(chosen.run),
        "seed": seed,
        "checkpoint": trained.kind,
        "step": trained.step,
        "choosing": kind,
        "choosing_rows": len(rows),
        "test_rows": len(dataset.test),
        "majority": baselines(dataset, "test")["majority class"],
        "sources": {m.name: m.source for m in plan.methods},
        **found,
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Print one table of all points."""
    table = Table(title=f"{report['title']}: {report['test_rows']} test rows")
    for name in ("method", "share kept", "size kept", "accuracy", "log loss", "layers removed"):
        table.add_column(name, justify="left" if name == "method" else "right")
    scores = [("whole model", {"keep": 1.0, "size_kept": 1.0, **report["whole"]})]
    for name, found in report["methods"].items():
        scores += [(name, point) for point in found["points"]]
        scores += [
            ("one layer less", {**p, "removed": [p["layer"]]}) for p in found.get("one_removed", ())
        ]
    for name, point in scores:
        table.add_row(
            name,
            *(f"{100 * point[k]:.1f} %" if k in point else "" for k in ("keep", "size_kept")),
            f"{100 * point['accuracy']:.2f} %",
            f"{point['log_loss']:.4f}",
            " ".join(map(str, point.get("removed", []))),
        )
    table.add_row("majority class", "", "", f"{100 * report['majority']:.2f} %", "", "")
    console.print(table)
