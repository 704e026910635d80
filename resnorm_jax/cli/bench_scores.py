"""``resnorm bench --only=scores``: the estimator beside MiniRocket and nearest neighbours."""

import argparse
from dataclasses import asdict
from pathlib import Path

from resnorm_jax.cli.bench_training import say
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once

SCORES = "scores"


def scores(arguments: argparse.Namespace) -> None:
    """Score every classifier on every data set; a file that was begun goes on."""
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.bench.results import Results, slug
        from resnorm_jax.bench.score_report import score_lines
        from resnorm_jax.bench.scores import QUICK, Scores, cases, score_row, versions
        from resnorm_jax.reporting.environment import environment
        from resnorm_jax.reporting.tables import runtime_line

    settings = QUICK if arguments.quick else Scores()
    here = environment()
    about = {**here, "versions": {**here["versions"], **versions()}, "settings": asdict(settings)}
    output = arguments.output or Path(f"resnorm-scores-{slug(here['device'])}.json")
    if not output.is_file():  # a table that was begun there goes on
        check_file("--output", output)
    results, console = Results(output, about), Console()
    say(console, runtime_line())
    for case in cases(settings):
        if not results.holds(SCORES, case.key):
            with console.status(case.key):
                results.add(SCORES, case.key, row := score_row(case))
            say(
                console,
                f"{case.key}: {100 * row['accuracy']:.2f} %, {row['cpu_seconds']} CPU seconds",
            )
    say(console, " ", *score_lines(results.document[SCORES]), " ", f"results  {output}")
