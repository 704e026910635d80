"""What a run leaves behind when it is done: ``report.json``, figures, tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from resnorm_jax.config import Config
from resnorm_jax.data import Dataset
from resnorm_jax.reporting.figures import draw_confusion, draw_curves, draw_labels
from resnorm_jax.reporting.files import MetricsLog, write_json
from resnorm_jax.reporting.metrics import summarize_seeds
from resnorm_jax.reporting.tables import per_class_table, phases_table, result_table
from resnorm_jax.training.calibration import calibration_line
from resnorm_jax.training.identity import Identity
from resnorm_jax.training.phases import PHASES, Phases
from resnorm_jax.training.run_data import baselines, padding, scored_rows

FILES = {
    "report": "report.json",
    "log": "metrics.jsonl",
    "curves": "curves.png",
    "confusion": "confusion.png",
    "labels": "labels.png",
    "checkpoints": "checkpoints",
}


def make_report(
    config: Config,
    dataset: Dataset,
    scores: list[dict[str, Any]],
    programs: int,
    identity: Identity,
) -> dict[str, Any]:
    """Return the report: the mean scores at the top, every seed below, trivial rules beside.

    ``padding`` is that of `resnorm_jax.training.run_data.padding`; ``changes`` are the identity's: what
    was not the same all along. What the data's source tells is there too: of texts, ``truncation``.
    """
    split = config.train.score
    summary = summarize_seeds(scores)
    trivial = baselines(dataset, split)
    hashes = [s["params_sha256"] for s in scores]
    return {
        "dataset": dataset.name,
        "arrangement": config.model.arrangement,
        "split": split,
        "rows": len(scored_rows(dataset, split)),
        "majority": majority(trivial),
        "baselines": trivial,
        **{name: values["mean"] for name, values in summary.items()},
        "summary": summary,
        "train_seconds": sum(s["train_seconds"] for s in scores),
        "compiled_programs": programs,
        "params_sha256": hashes[0] if len(hashes) == 1 else hashes,
        "classes": list(dataset.classes),
        "seeds": scores,
        "padding": padding(dataset, identity.edges or (), config.train.batch_size),
        "changes": list(identity.changes),
        **dataset.told,
    }


def majority(trivial: Mapping[str, Any]) -> float:
    """Return the accuracy of the first trivial rule, which says what most rows have."""
    first = next(iter(trivial.values()))
    return first["accuracy"] if isinstance(first, Mapping) else first


def write_report(
    report: Mapping[str, Any], workdir: Path, log: MetricsLog, console: Console, phases: Phases
) -> dict[str, Any]:
    """Draw the figures, write ``report.json``, and print the tables; return the report.

    ``phases`` are those of this sitting; the time to write the report itself is not in them.
    """
    files = {name: workdir / path for name, path in FILES.items()}
    first, title = report["seeds"][0], f"{report['dataset']}, {report['arrangement']}"
    rows = f"{report['split']} rows"
    about = f"{title}: seed {first['seed']}, {rows}"
    with phases("report"):
        draw_curves(log.rows(), files["curves"], title, report["seeds"], report["split"])
        if "confusion" in first:
            draw_confusion(first["confusion"], report["classes"], files["confusion"], about)
        else:
            draw_labels(first["per_class"], files["labels"], about)
    del files["labels" if "confusion" in first else "confusion"]
    report = {**report, "phases": phases.told()}
    write_json(files["report"], report)
    phases_table(report["phases"], PHASES, console)
    per_class_table(first, console)
    shown = {**report, "title": f"{title}: {report['rows']} {rows}", "files": files}
    result_table(shown, console)
    for each in report["seeds"]:
        if each["calibration"] is not None:
            line = f"seed {each['seed']}: {calibration_line(each['calibration'])}"
            console.print(line, highlight=False, soft_wrap=True)
    return report
