"""``resnorm bench --only=scaling``: weak scaling on fake CPU devices, beside the plan."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from resnorm_jax.cli.bench_training import say
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.plan_run import COUNT_FLAG
from resnorm_jax.cli.start import ending_at_once

SCALING = "scaling"
DEVICES = 8
CANNOT = (
    "These devices share {cores} cores: wall time grows with the work, and says nothing of the speed "
    "of real devices or links. Counts, bytes and memory are of the compiled programs."
)


def scaling(arguments: argparse.Namespace) -> None:
    """Compile and run the steps; a file that was begun goes on."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(COUNT_FLAG)]
    os.environ["XLA_FLAGS"] = " ".join([*flags, f"{COUNT_FLAG}={DEVICES}"])
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.bench.results import Results
        from resnorm_jax.bench.scaling import QUICK, Scaling, case_step, scaling_lines, scaling_row
        from resnorm_jax.reporting.environment import busy_note, environment
        from resnorm_jax.reporting.tables import runtime_line

    settings = QUICK if arguments.quick else Scaling()
    output = arguments.output or Path("resnorm-scaling-cpu.json")
    if not output.is_file():
        check_file("--output", output)
    here = environment()
    results = Results(output, {**here, "settings": asdict(settings)})
    console = Console()
    say(console, runtime_line(), busy_note())
    for name in settings.cases:
        missing = [n for n in settings.devices if not results.holds(SCALING, f"{name} {n}")]
        step = case_step(name) if missing else None
        for devices in missing:
            assert step is not None
            say(console, f"{name}, {devices} devices")
            row = scaling_row(step, name, devices, settings)
            results.add(SCALING, row["key"], row)
    say(console, *scaling_lines(results.document[SCALING]))
    say(console, CANNOT.format(cores=here["cores"]), f"results  {output}")
