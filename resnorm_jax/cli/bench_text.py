"""``resnorm bench --only=text``: a fine-tuned encoder beside what costs less."""

import argparse
from pathlib import Path

from resnorm_jax.cli.bench_training import say
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError

TEXT = "text"


def text_scores(arguments: argparse.Namespace) -> None:
    """Score every way on one's own texts; a file that was begun goes on."""
    if arguments.data is None:
        raise UserError("--data: missing; --only=text needs it")
    with ending_at_once():
        from importlib import metadata

        from rich.console import Console

        from resnorm_jax.bench.results import Results, slug
        from resnorm_jax.bench.text_report import speed_line, text_lines
        from resnorm_jax.bench.text_scores import (
            PACKAGES,
            SPEED,
            Texts,
            beside_torch,
            cases,
            score_row,
        )
        from resnorm_jax.reporting.environment import environment
        from resnorm_jax.reporting.tables import runtime_line

    texts = Texts(arguments.data, arguments.init_from, 1 if arguments.quick else 3, arguments.quick)
    rows = {split: len(texts.rows(split)[0]) for split in ("train", "valid", "test")}
    here = environment()
    versions = {**here["versions"], **{name: metadata.version(name) for name in PACKAGES}}
    settings = {
        "data": texts.folder.name, "rows": rows, "quick": texts.quick,
        "init_from": texts.init_from and texts.init_from.name,
    }  # fmt: skip
    output = arguments.output or Path(f"resnorm-text-{slug(here['device'])}.json")
    if not output.is_file():  # a table that was begun there goes on
        check_file("--output", output)
    results = Results(output, {**here, "versions": versions, "settings": settings})
    console = Console()
    say(console, runtime_line())
    for contender, seed in cases(texts):
        key = f"{contender.name}, seed {seed}"
        if not results.holds(TEXT, key):
            with console.status(key):
                row = {"key": key, **score_row(texts, contender, seed)}
                results.add(TEXT, key, row)
            say(console, f"{key}: {100 * row['accuracy']:.2f} %, {row['seconds']} seconds")
    if texts.init_from is not None and not results.holds(SPEED, SPEED):
        with console.status("fine-tuning beside torch"):
            if (speed := beside_torch(texts)) is not None:
                results.add(SPEED, SPEED, {"key": SPEED, **speed})
    say(console, " ", *text_lines(results.document[TEXT]))
    say(console, *map(speed_line, results.document.get(SPEED, [])), " ", f"results  {output}")
