"""``resnorm predict RUN INPUT --explain=FILE.html``: one prediction explained."""

from pathlib import Path
from typing import TYPE_CHECKING

from resnorm_jax.cli.outputs import check_file
from resnorm_jax.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from resnorm_jax.data import Examples
    from resnorm_jax.training.saved_run import Trained


def check_page(path: Path) -> None:
    """Raise UserError unless the page, and the JSON beside it, can be new files."""
    check_file("--explain", path, [".html"])
    check_file("--explain", path.with_suffix(".json"))


def write_explanation(
    trained: "Trained", examples: "Examples", row: int, path: Path, run: Path, console: "Console"
) -> None:
    """Explain a row, counted from 1; print the check, write the page and JSON."""
    from resnorm_jax.lab.explain.explain import explain
    from resnorm_jax.lab.explain.page import page
    from resnorm_jax.reporting import html
    from resnorm_jax.reporting.files import write_json

    if trained.task.name != "single_label":
        raise UserError("--explain: rows of this run have any number of labels; leave it out")
    if row > len(examples):
        raise UserError(f"--row: {row}; the file has rows 1 to {len(examples)}")
    found = explain(trained, examples, row - 1)
    found |= {"row": row, "run": str(run), "step": trained.step}
    told, parts = found["prediction"], found["attribution"]
    console.print(
        f"row {row}: {told['class']}, probability {told['probability']:.4f}\n"
        f"logit {parts['logit']:.4f} = {parts['start']:.4f} ({parts['starts_from']}) + "
        f"{parts['logit'] - parts['start'] - parts['residual']:.4f} (parts, {parts['method']}) + "
        f"{parts['residual']:.1e} (left over)",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    html.write_page(path, page(found))
    write_json(path.with_suffix(".json"), found)
    for name in (path, path.with_suffix(".json")):
        console.print(str(name), highlight=False, markup=False, soft_wrap=True)
