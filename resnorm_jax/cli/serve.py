"""``resnorm serve RUN``: a page and an HTTP API that predict with a run."""

import argparse
from dataclasses import fields
from pathlib import Path

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.schema import KEY_SEED, between, kinds
from resnorm_jax.serving.limits import Limits


def main(argv: list[str]) -> int:
    """Serve a run until Ctrl-C or SIGTERM."""
    parser = Parser(
        prog="resnorm serve",
        description="A page with a form at /, POST /predict and GET /health, for a run. Every shape is "
        "compiled before the first request; those that wait are computed together. There is no "
        "password and no encryption: put a proxy in front of it for other machines.",
    )
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: this machine alone)")
    parser.add_number("--port", int, between(0, 65535), default=8000, help="default: 8000; 0: any")
    parser.add_number(
        "--seed", int, KEY_SEED, help="which seed's checkpoint; the first if left out"
    )
    parser.add_argument("--checkpoint", choices=("best", "last"), help="as scored if left out")
    for one in fields(Limits):
        rule, told = one.metadata["rule"], f"{one.metadata['help']} (default: {one.default})"
        parser.add_number(
            f"--{one.name}", kinds(Limits)[one.name][0], rule, default=one.default, help=told
        )
    chosen = parser.parse_args(argv)
    if chosen.rows > chosen.queue:
        parser.error(f"--rows: {chosen.rows} could never wait in a --queue of {chosen.queue}")
    _serve(chosen)
    return 0


def _serve(chosen: argparse.Namespace) -> None:
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.data.checks import import_extra
        from resnorm_jax.reporting.tables import runtime_line
        from resnorm_jax.training.saved_run import load_trained

        for module, package in (
            ("starlette", "starlette"), ("uvicorn", "uvicorn"),
            ("python_multipart", "python-multipart"),
        ):  # fmt: skip
            import_extra(module, package, "serve", "resnorm serve")
        from resnorm_jax.serving.server import serve

    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    trained = load_trained(chosen.run, chosen.seed, chosen.checkpoint)
    limits = Limits(**{one.name: getattr(chosen, one.name) for one in fields(Limits)})
    serve(trained, chosen.host, chosen.port, limits, console)
