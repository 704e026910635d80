"""``resnorm evaluate RUN``: score a run's checkpoint."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError
from resnorm_jax.schema import KEY_SEED

if TYPE_CHECKING:
    from resnorm_jax.data import Examples
    from resnorm_jax.training.saved_run import Trained


def main(argv: list[str]) -> int:
    """Score a run on its test rows, or on a labelled file."""
    parser = Parser(prog="resnorm evaluate", description="Score a run's checkpoint.")
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--input", type=Path, help="labelled file, as predict reads it")
    parser.add_number(
        "--seed", int, KEY_SEED, help="which seed's checkpoint; the first if left out"
    )
    parser.add_argument("--checkpoint", choices=("best", "last"), help="as scored if left out")
    parser.add_argument("--output", type=Path, help="JSON file for the scores")
    chosen = parser.parse_args(argv)
    if chosen.output:
        check_file("--output", chosen.output)
    _evaluate(chosen)
    return 0


def _evaluate(chosen: argparse.Namespace) -> None:
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.reporting.calibration import errors
        from resnorm_jax.reporting.files import write_json
        from resnorm_jax.reporting.tables import per_class_table, result_table, runtime_line
        from resnorm_jax.training.saved_run import load_trained

    keep_programs()
    console = Console()
    console.print(runtime_line(), highlight=False)
    trained = load_trained(chosen.run, chosen.seed, chosen.checkpoint)
    examples, rules = _rows(trained, chosen.input)
    log_probs = trained.log_probs(examples)
    classes = trained.meta["classes"]
    found = trained.task.score(log_probs, examples.y, classes, trained.thresholds)
    if trained.temperature is not None:
        told = errors(trained.calibrated(log_probs), examples.y)
        found["calibrated"] = {"temperature": trained.temperature, **told}
    report = {
        "title": f"{trained.meta['name']}: {len(examples)} rows, {trained.kind} checkpoint, "
        f"step {trained.step}",
        "seeds": [{"seed": trained.seed, **found}],
        "baselines": rules,
        "files": {"scores": chosen.output} if chosen.output else {},
    }
    if chosen.output:
        write_json(chosen.output, {"run": str(chosen.run), "step": trained.step, **found})
    per_class_table(found, console)
    result_table(report, console)
    console.print(_calibration_line(trained, found), highlight=False, soft_wrap=True)


def _calibration_line(trained: "Trained", found: dict[str, Any]) -> str:
    """Return what the run's temperature does to the errors of these rows."""
    from resnorm_jax.training.calibration import calibration_line

    after = found.get("calibrated")
    if after is None:
        return calibration_line(trained.calibration)
    names = {"expected_calibration_error": "expected calibration error", "log_loss": "log loss"}
    told = [f"{words} {found[n]:.4f} before, {after[n]:.4f} after" for n, words in names.items()]
    return f"temperature {trained.temperature:.3f}, from validation rows: {'; '.join(told)}"


def _rows(trained: "Trained", path: Path | None) -> tuple["Examples", dict[str, Any]]:
    """Return the rows to score, and what trivial rules score on them."""
    with ending_at_once():
        from resnorm_jax.data.inputs import read_inputs
        from resnorm_jax.training.run_data import baselines

    if path is None:
        dataset = trained.dataset()
        return dataset.test, baselines(dataset, "test")
    examples = read_inputs(path, trained.meta)
    unknown = (examples.y < 0).reshape(len(examples), -1).any(axis=1)
    if unknown.any():
        raise UserError(f"{path}: row {int(unknown.argmax()) + 1} has no label to score")
    return examples, {}
