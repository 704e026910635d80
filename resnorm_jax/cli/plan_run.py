"""``resnorm plan-run CONFIG --devices=N,M``: what a run needs on devices that one need not have."""

import argparse
import os
from dataclasses import asdict
from pathlib import Path

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError
from resnorm_jax.schema import POSITIVE, from_zero, over_zero, told

MOST_DEVICES = 2**20
COUNT_FLAG = "--xla_force_host_platform_device_count"


def main(argv: list[str]) -> int:
    """Print a plan, and write it; return the exit status."""
    settings = [a for a in argv if a.startswith("--config.")]
    chosen = _parser().parse_args([a for a in argv if a not in settings])
    if chosen.output is not None:
        check_file("--output", chosen.output, (".json",))
    _plan(chosen, settings)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="resnorm plan-run",
        description="Memory of a device by part, collectives and their bytes, and the time of a step, "
        "for any number of devices, from the step compiled here for one device's share. The equations "
        "are in resnorm_jax/scaling/README.md. What nobody has checked is printed with it.",
    )
    parser.add_argument("config", help="as --config of resnorm train: NAME or FILE.py, [:ARGUMENT]")
    parser.add_argument(
        "--devices", type=device_counts, required=True, metavar="N,M", help="numbers of devices"
    )
    parser.add_number("--rows", int, POSITIVE, metavar="R",
                      help="rows on each device (default: the config's batch, divided)")  # fmt: skip
    parser.add_number("--link", float, over_zero(1e6), metavar="GB/S",
                      help="gigabytes (1e9 bytes) a second that each device can send")  # fmt: skip
    parser.add_number("--latency", float, from_zero(1.0), default=0.0, metavar="S",
                      help="seconds of each hop of a ring (default: 0)")  # fmt: skip
    parser.add_number(
        "--step-seconds", float, over_zero(1e6), metavar="S",
        help="time of a step of one device with the config's batch, or with --rows (default: measured "
        "here)",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the plan as JSON too")
    parser.epilog = (
        "--config.path.to.field=value sets a field, as for resnorm train; config.parallel and "
        "config.mesh say how the devices share the work."
    )
    return parser


def device_counts(text: str) -> tuple[int, ...]:
    """Return numbers of devices from ``1,8,1024``."""
    parts = text.split(",")
    if not all(p.isascii() and p.isdigit() and 1 <= int(p) <= MOST_DEVICES for p in parts):
        raise argparse.ArgumentTypeError(
            f"{told(text)!r}: give numbers from 1 to {MOST_DEVICES}, e.g. 1,8,1024"
        )
    return tuple(dict.fromkeys(map(int, parts)))


def _plan(chosen: argparse.Namespace, settings: list[str]) -> None:
    two_cpu_devices()
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        import jax
        from rich.console import Console

        from resnorm_jax.config import override
        from resnorm_jax.config_file import read_config
        from resnorm_jax.interop.init_from import checked_config
        from resnorm_jax.reporting.environment import environment
        from resnorm_jax.reporting.files import write_json
        from resnorm_jax.reporting.tables import runtime_line
        from resnorm_jax.scaling.plan import Asked, plan_run
        from resnorm_jax.scaling.report import notes, print_plan
        from resnorm_jax.scaling.step import step_of

    config = read_config(chosen.config)
    for path, value in map(_setting, settings):
        override(config, path, value)
    link = None if chosen.link is None else 1e9 * chosen.link
    checked = checked_config(config.to_dict())
    if checked.mesh.sequence > 1:
        raise UserError(
            f"config.mesh.sequence: {checked.mesh.sequence} is not planned; leave it out of the plan"
        )
    asked = Asked(
        chosen.devices, checked.parallel, checked.mesh.fsdp, checked.mesh.tensor, chosen.rows, link,
        chosen.latency, chosen.step_seconds,
    )  # fmt: skip
    console = Console()

    def say(*lines: str) -> None:
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    say(runtime_line())
    step = step_of(checked)
    rows = plan_run(step, asked, say)
    print_plan(rows, console)
    told_of = notes(step, asked, rows, jax.default_backend())
    say(*told_of)
    if chosen.output is not None:
        document = {
            "config": checked.to_dict(), "asked": asdict(asked), "notes": told_of,
            "rows": [row.document() for row in rows],
        }  # fmt: skip
        write_json(chosen.output, {**environment(), **document})
        say(f"plan     {chosen.output}")


def two_cpu_devices() -> None:
    """Have a CPU look like two devices, unless the user chose, before jax starts.

    A program for two has the collectives of one for a thousand.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if COUNT_FLAG not in flags and "JAX_NUM_CPU_DEVICES" not in os.environ:
        os.environ["XLA_FLAGS"] = f"{flags} {COUNT_FLAG}=2".strip()


def _setting(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals or not value:
        raise UserError(f"{told(name)}: no value; write {told(name)}=VALUE")
    return name.removeprefix("--config."), value
