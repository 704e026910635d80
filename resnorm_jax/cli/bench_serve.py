"""``resnorm bench --only=serve``: `resnorm serve` under a load generator."""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from resnorm_jax.cli.bench_training import say
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once

if TYPE_CHECKING:
    from rich.console import Console

SERVE = "serve"
CONFIG = "digits:smoke"  # what is trained where no run is given


def serve_load(arguments: argparse.Namespace) -> None:
    """Serve a run, ask it many times, write what came."""
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.bench.load import QUICK, Load, load_lines, load_row
        from resnorm_jax.bench.results import Results, slug
        from resnorm_jax.reporting.environment import environment
        from resnorm_jax.reporting.tables import runtime_line
        from resnorm_jax.training.saved_run import load_trained

    load = QUICK if arguments.quick else Load()
    here = environment()
    output = arguments.output or Path(f"resnorm-serve-{slug(here['device'])}.json")
    check_file("--output", output)
    console = Console()
    say(console, runtime_line())
    with tempfile.TemporaryDirectory(prefix="resnorm-bench-") as folder:
        run = arguments.run or _trained(Path(folder) / "run", console)
        row = load_row(load_trained(run), run, load)
    results = Results(output, {**here, "settings": asdict(load)})
    results.add(SERVE, row["key"], row)
    say(console, *load_lines(row), f"results  {output}")


def _trained(run: Path, console: "Console") -> Path:
    import resnorm_jax as rn

    say(console, f"training {CONFIG}, to have a run")
    rn.train(rn.load_config(CONFIG, {"devices": 1}), run)
    return run
