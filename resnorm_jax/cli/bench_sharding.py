"""``resnorm bench --only=sharding``: what each of eight devices holds and sends, by both doors."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from resnorm_jax.cli.bench_training import say
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once

SHARDING = "sharding"
FAKE = "--xla_force_host_platform_device_count=8"


def sharding(arguments: argparse.Namespace) -> None:
    """Compile and run a step by each door and mesh; a CPU stands for eight devices."""
    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FAKE}".strip()
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.bench.results import Results, slug
        from resnorm_jax.bench.sharding import CASES, QUICK, SIZE, check_devices, sharding_row
        from resnorm_jax.bench.speed_report import REPORTS
        from resnorm_jax.reporting.environment import environment
        from resnorm_jax.reporting.tables import runtime_line

    check_devices()
    here, size = environment(), QUICK if arguments.quick else SIZE
    output = arguments.output or Path(f"resnorm-sharding-{slug(here['device'])}.json")
    check_file("--output", output)
    console = Console()
    say(console, runtime_line())
    results = Results(output, {**here, "settings": asdict(size)})
    for case in CASES:
        say(console, f"compiling {case.key}")
        results.add(SHARDING, case.key, sharding_row(case, size))
    say(console, *REPORTS[SHARDING](results.document[SHARDING]), f"results  {output}")
