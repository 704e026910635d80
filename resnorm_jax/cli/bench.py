"""``resnorm bench``: speed, memory, compile time and accuracy, beside named peers, in one run."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.bench_scaling import SCALING, scaling
from resnorm_jax.cli.bench_scores import SCORES, scores
from resnorm_jax.cli.bench_serve import SERVE, serve_load
from resnorm_jax.cli.bench_sharding import SHARDING, sharding
from resnorm_jax.cli.bench_text import TEXT, text_scores
from resnorm_jax.cli.bench_training import DEPTH, TABLES, depth, say, trained
from resnorm_jax.cli.errors import guarded
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.schema import Rule

if TYPE_CHECKING:
    from rich.console import Console

MENUS = ("norm", "arrangement", "stream")
# What has a file of results of its own form.
APART = {
    DEPTH: depth, SCALING: scaling, SCORES: scores, SERVE: serve_load, SHARDING: sharding,
    TEXT: text_scores,
}  # fmt: skip
SECTIONS = ("norm", "step", "determinism", "accuracy", "curves", "memory", "tune")


def main(argv: list[str]) -> int:
    """Run ``resnorm bench`` with these arguments (the command's own name left out)."""
    return guarded(lambda: _main(argv))


def _main(argv: list[str]) -> None:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.show is not None:
        unread = (
            "dtype",
            "only",
            "run",
            "data",
            "init_from",
            "over",
            "names",
            "quick",
            "all",
            "seconds",
            "processes",
        )
        parser.not_read(arguments, unread, "with --show")
        return _show(arguments)
    if arguments.only not in (*TABLES, DEPTH):
        parser.not_read(arguments, ["names"], "without --only=digits, vowels or depth")
    else:
        parser.not_read(arguments, ["all", "seconds"], f"with --only={arguments.only}")
    if arguments.only not in TABLES:
        parser.not_read(arguments, ["over"], "without --only=digits or vowels")
    if arguments.only in APART:
        parser.not_read(arguments, ["dtype"], f"with --only={arguments.only}")
    if arguments.only not in (None, "norm"):
        parser.not_read(arguments, ["processes"], f"with --only={arguments.only}")
    if arguments.only in APART and arguments.only != DEPTH:
        parser.not_read(arguments, ["all", "seconds"], f"with --only={arguments.only}")
    if arguments.only != TEXT:
        parser.not_read(arguments, ["data", "init_from"], "without --only=text")
    if arguments.only != SERVE:
        parser.not_read(arguments, ["run"], "without --only=serve")
    commands = {**APART, **dict.fromkeys(TABLES, trained)}
    commands.get(arguments.only, _bench)(arguments)


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm bench",
        description="Measure this library beside flax.linen, torch and whoever else is installed, on "
        "this device: norms as shares of the copy's bandwidth, training steps, whether two runs are "
        "equal, accuracy, compiled programs. Each row is saved as it comes, and the same command goes "
        "on with a file that was begun. About six minutes on two cores.",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"),
        help="measure norms of this dtype alone, and models that compute in it (default: norms of "
        "both, each model in its own)",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=(*SECTIONS, *TABLES, *APART),
        help="measure only this. Not measured otherwise: tune, the kernels' tiles; digits and vowels, "
        "which train a small classifier with every norm, arrangement or stream, ten seconds to a "
        "minute each; depth, the cost of 10, 100 and 1000 layers, about ten minutes; scores, the "
        "estimator beside MiniRocket and nearest neighbours on two data sets, about ten minutes; "
        "scaling, steps on 1 to 8 fake CPU devices beside their plan; serve, 10,000 requests to "
        "resnorm serve, about a minute; sharding, what each of eight devices holds and sends by pmap "
        "and by parallel=sharded, about two minutes; and text, a fine-tuned encoder beside what costs "
        "less, on texts of your own",
    )  # fmt: skip
    parser.add_argument(
        "--run", type=Path, metavar="DIR",
        help="with --only=serve: the run that is served (default: one that is trained for it)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="with --only=text: folder of train.csv, valid.csv and test.csv (columns text, label)",
    )  # fmt: skip
    parser.add_argument(
        "--init-from", type=Path, metavar="DIR",
        help="with --only=text: folder of the checkpoint that is fine-tuned",
    )  # fmt: skip
    parser.add_argument(
        "--over", choices=MENUS,
        help="with --only=digits or vowels: what is compared (default: norm for digits, arrangement "
        "for vowels)",
    )  # fmt: skip
    parser.add_argument(
        "--names", type=lambda text: tuple(text.split(",")), metavar="A,B",
        help="with --only=digits or vowels: only these; with --only=depth: these arrangements "
        "(default: those made for a thousand layers)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that all runs, times mean nothing"
    )
    parser.add_argument(
        "--all", action="store_true",
        help="leave nothing out for its time: torch.compile and the BERT-base step on a CPU",
    )  # fmt: skip
    parser.add_number(
        "--seconds", float, Rule(low=0.0, high=1e6), metavar="S",
        help="begin no row later than this; the same command measures the others",
    )  # fmt: skip
    parser.add_number(
        "--processes", int, Rule(low=1, high=256), metavar="N",
        help="compile norms in so many processes at once, one of which measures at a time: for "
        "accelerators, where compiling takes longest (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="FILE",
        help="file of the results; the plot lies beside it, named .png (default: "
        "resnorm-bench-<device>.json). With --show: file of the plot",
    )  # fmt: skip
    parser.add_argument(
        "--show", type=Path, metavar="FILE",
        help="measure nothing: print the tables of a file of results, and draw its plot if there is "
        "none beside it",
    )  # fmt: skip
    return parser


def _bench(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    # torch and jax share the device; read when jax starts.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Imported here, as below: --help should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.bench.results import Results, slug
        from resnorm_jax.bench.run import BY_DEFAULT, measure_all
        from resnorm_jax.bench.settings import about, settings_here
        from resnorm_jax.reporting.environment import busy_note, environment
        from resnorm_jax.reporting.tables import runtime_line

    here = environment()
    output = arguments.output or Path(f"resnorm-bench-{slug(here['device'])}.json")
    if not _begun(output):
        check_file("--output", output)
        check_file("--output", output.with_suffix(".png"))
    settings = settings_here(arguments.dtype, arguments.all, arguments.quick)
    results = Results(output, {**here, "settings": about(settings)})
    console = Console()
    say(console, runtime_line(), busy_note())
    with console.status("starting") as status:

        def note(text: str) -> None:
            status.update(text)
            say(console, None if console.is_terminal else text)

        sections = BY_DEFAULT if arguments.only is None else (arguments.only,)
        until = float("inf") if arguments.seconds is None else began + arguments.seconds
        try:
            count = arguments.processes or 1
            late = measure_all(settings, results, sections, note, until, count)
        finally:
            _report(results.document, output.with_suffix(".png"), console)
    say(console, f"results  {output}")
    if late:
        say(console, f"no time was left for {len(late)} rows; the same command goes on with them")


def _begun(path: Path) -> bool:
    """Whether a file holds results that may be gone on with; others are refused by their name."""
    from resnorm_jax.bench.results import read
    from resnorm_jax.errors import UserError

    try:
        return path.is_file() and bool(read(path))
    except (UserError, OSError):
        return False


def _show(arguments: argparse.Namespace) -> None:
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.bench.results import measured, read

    document = read(arguments.show)
    plot = arguments.output or arguments.show.with_suffix(".png")
    if arguments.output is not None:
        check_file("--output", plot, (".png",))
    console = Console()
    say(console, measured(document), " ")
    _report(document, None if plot.exists() else plot, console)


def _report(document: dict[str, Any], plot: Path | None, console: "Console") -> None:
    """Print all tables that a document holds, and draw its plot."""
    from resnorm_jax.bench import report
    from resnorm_jax.bench.depth_figure import draw_depths
    from resnorm_jax.bench.plot import draw_roofline
    from resnorm_jax.bench.speed_report import REPORTS

    for section, lines in REPORTS.items():
        if section in document:
            say(console, *(line or " " for line in lines(document[section])), " ")
    for section, table in report.TABLES.items():
        if section in document:
            table(document[section], console)
    if plot is not None and (draw_roofline(document, plot) or draw_depths(document, plot)):
        say(console, f"plot     {plot}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
