"""``resnorm export RUN --output=DIR``: a run's model for use elsewhere."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.outputs import check_folder
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError
from resnorm_jax.schema import KEY_SEED

if TYPE_CHECKING:
    from resnorm_jax.data import Examples
    from resnorm_jax.training.saved_run import Trained

FORMATS = {
    "stablehlo": "a program for any number of rows and positions, on CPU, GPU and TPU",
    "safetensors": "the parameters alone, by their paths, for other programs; resnorm convert writes "
    "what transformers and rn.from_pretrained load",
    "onnx": "for ONNX runtimes, by jax2onnx",
}


def main(argv: list[str]) -> int:
    """Write a run's model into a folder, load it again, and compare it with the run's."""
    formats = "; ".join(f"{name}: {about}" for name, about in FORMATS.items())
    parser = Parser(
        prog="resnorm export",
        description="Write a run's model in another format, with a model.json that says its inputs, "
        "classes and preprocessing. It is loaded again and compared with the run's on random and on "
        "test rows before the folder is there.",
    )
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument("--format", choices=FORMATS, default="stablehlo", help=formats)
    parser.add_argument("--input", type=Path, help="file of rows to compare on, not the test rows")
    parser.add_number(
        "--seed", int, KEY_SEED, help="which seed's checkpoint; the first if left out"
    )
    parser.add_argument("--checkpoint", choices=("best", "last"), help="as scored if left out")
    chosen = parser.parse_args(argv)
    check_folder("--output", chosen.output)
    _export(chosen)
    return 0


def _export(chosen: argparse.Namespace) -> None:
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.export.formats import FORMATS, library
        from resnorm_jax.export.write import export
        from resnorm_jax.reporting.tables import runtime_line
        from resnorm_jax.training.saved_run import load_trained

    for package in FORMATS[chosen.format].needs:
        library(package)
    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    trained = load_trained(chosen.run, chosen.seed, chosen.checkpoint)
    found = export(trained, chosen.output, chosen.format, _rows(chosen.input, trained))
    for path in sorted(chosen.output.iterdir()):
        size = f"{path.stat().st_size / 1e6:.2f} MB"
        console.print(f"{size:>12}  {path}", highlight=False, markup=False, soft_wrap=True)
    console.print(found.line(), highlight=False, soft_wrap=True)


def _rows(path: Path | None, trained: "Trained") -> "Examples | None":
    from resnorm_jax.data.inputs import read_inputs

    if path is None:
        return None
    examples = read_inputs(path, trained.meta)
    if not len(examples):
        raise UserError(f"--input: {path} has no rows")
    return examples
