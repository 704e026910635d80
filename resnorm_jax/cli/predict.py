"""``resnorm predict RUN INPUT`` or ``--text=...``: class and probability of each row."""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.predict_explain import check_page, write_explanation
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError
from resnorm_jax.schema import KEY_SEED, POSITIVE

if TYPE_CHECKING:
    import numpy as np

    from resnorm_jax.data import Examples
    from resnorm_jax.training.saved_run import Trained

Rows = list[dict[str, Any]]
JOINT = "; "  # between the labels of a row in CSV


def main(argv: list[str]) -> int:
    """Predict the rows of a file, or texts; print them, or write them to --output."""
    parser = Parser(prog="resnorm predict", description="Class and probability of each row.")
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument(
        "input",
        type=Path,
        nargs="?",
        help=".ts, .npz, .csv, .tsv, .jsonl or .parquet file, or a folder of texts",
    )
    parser.add_argument(
        "--text", action="append", default=[], metavar="TEXT",
        help="a text, in place of a file; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--text-pair", action="append", default=[], metavar="TEXT",
        help="the second text of a pair, for a model of pairs; one for each --text, in their order",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help=".csv or .jsonl file; printed if left out")
    parser.add_number("--top", int, POSITIVE, metavar="K", help="only the K most probable classes")
    parser.add_argument(
        "--calibrated", choices=("true", "false"), default="true",
        help="whether probabilities are those at the temperature that was fitted on the validation "
        "rows, if the run has any (default: true)",
    )  # fmt: skip
    parser.add_number(
        "--seed", int, KEY_SEED, help="which seed's checkpoint; the first if left out"
    )
    parser.add_argument("--checkpoint", choices=("best", "last"), help="as scored if left out")
    parser.add_argument("--explain", type=Path, help=".html file: why, for one row")
    parser.add_number(
        "--row", int, POSITIVE, help="which row to explain, counted from 1; the first if left out"
    )
    chosen = parser.parse_args(argv)
    if (chosen.input is None) == (not chosen.text):
        parser.error(f"give {'a file or --text, not both' if chosen.text else 'a file, or --text'}")
    if chosen.text_pair and len(chosen.text_pair) != len(chosen.text):
        counts = f"{len(chosen.text_pair)} of --text-pair, {len(chosen.text)} of --text"
        parser.error(f"{counts}; give one for each")
    if chosen.output:
        check_file("--output", chosen.output, WRITERS)
    suffix = chosen.output.suffix if chosen.output else ".csv"
    if chosen.explain:
        check_page(chosen.explain)
        if not chosen.output:
            parser.not_read(chosen, ["top", "calibrated"], "with --explain, without --output")
    else:
        parser.not_read(chosen, ["row"], "without --explain=FILE.html")
    _predict(chosen, suffix)
    return 0


def _predict(chosen: argparse.Namespace, suffix: str) -> None:
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        import numpy as np
        from rich.console import Console

        from resnorm_jax.reporting.files import write_bytes
        from resnorm_jax.reporting.tables import runtime_line
        from resnorm_jax.training.saved_run import load_trained

    trained = load_trained(chosen.run, chosen.seed, chosen.checkpoint)
    classes = trained.meta["classes"]
    if (chosen.top or 0) > len(classes):
        raise UserError(f"--top: {chosen.top}; the model has {len(classes)} classes")
    examples = _examples(chosen, trained)
    keep_programs()
    console = Console()
    if chosen.explain or chosen.output:
        console.print(runtime_line(), highlight=False)
    if chosen.explain:
        write_explanation(trained, examples, chosen.row or 1, chosen.explain, chosen.run, console)
        if chosen.output is None:
            return
    plain, shown = _log_probs(chosen, trained, examples)
    rows = predictions(shown, classes, chosen.top)
    if trained.task.name == "multi_label":
        rows = labelled(rows, trained.task.decide(np.exp(plain), classes, trained.thresholds))
    text = WRITERS[suffix](rows)
    if chosen.output is None:
        print(text, end="")
        return
    write_bytes(chosen.output, text.encode())
    console.print(f"{len(rows)} rows to {chosen.output}", highlight=False)


def _examples(chosen: argparse.Namespace, trained: "Trained") -> "Examples":
    with ending_at_once():
        from resnorm_jax.data.given import check_text
        from resnorm_jax.data.inputs import given_inputs, read_inputs

    if chosen.input:
        return read_inputs(chosen.input, trained.meta)
    if not trained.reads_texts:
        raise UserError(f"--text: this model reads {trained.meta['kind']}; give a file of rows")
    paired = bool(trained.meta["encoding"].get("pair_column"))
    if paired != bool(chosen.text_pair):
        fix = "give --text-pair too, one for each --text" if paired else "leave --text-pair out"
        raise UserError(
            f"--text: this model reads {'pairs of' if paired else 'single'} texts; {fix}"
        )
    for name, texts in (("--text", chosen.text), ("--text-pair", chosen.text_pair)):
        for number, text in enumerate(texts, start=1):
            check_text(f"{name}: text {number}", text)
    rows = list(zip(chosen.text, chosen.text_pair, strict=True)) if paired else chosen.text
    return given_inputs(rows, trained.meta)


def _log_probs(
    chosen: argparse.Namespace, trained: "Trained", examples: "Examples"
) -> tuple["np.ndarray", "np.ndarray"]:
    """Return log-probabilities, plain and as shown: calibrated if they are to be; tell so."""
    from resnorm_jax.training.calibration import calibration_line

    log_probs = trained.log_probs(examples)
    if chosen.calibrated == "false":
        return log_probs, log_probs
    print(calibration_line(trained.calibration), file=sys.stderr)
    return log_probs, trained.calibrated(log_probs)


def predictions(log_probs: "np.ndarray", classes: list[str], top: int | None = None) -> Rows:
    """Return a dictionary for each row: its number from 1 on, class, probability, and more.

    Without ``top`` that is ``probabilities`` by class; with it ``top``, a list of that many
    ``{"class", "probability"}``, the most probable first; the first class of a tie goes first.
    """
    with ending_at_once():
        import numpy as np

    rows: Rows = []
    for number, p in enumerate(np.exp(log_probs.astype(np.float64)), start=1):
        order = np.argsort(-p, kind="stable")
        named = [{"class": classes[i], "probability": round(float(p[i]), 6)} for i in order[:top]]
        every = {c: round(float(v), 6) for c, v in zip(classes, p, strict=True)}
        more = {"top": named} if top else {"probabilities": every}
        rows.append({"row": number, **named[0], **more})
    return rows


def labelled(rows: Rows, labels: Iterable[tuple[str, ...]]) -> Rows:
    """Return predictions with a row's ``labels``, a list, in place of its one class."""
    made = []
    for row, names in zip(rows, labels, strict=True):
        rest = {name: value for name, value in row.items() if name not in ("class", "probability")}
        made.append({"row": rest.pop("row"), "labels": list(names), **rest})
    return made


def _csv(rows: Rows) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head, first = ["class", "probability"], rows[0] if rows else {}
    many = ["labels"] if "labels" in first else []
    if "top" in first:
        ranks = ["", *(f" {rank}" for rank in range(2, len(first["top"]) + 1))]
        writer.writerow(["row", *many, *(f"{name}{rank}" for rank in ranks for name in head)])
        for row in rows:
            told = [JOINT.join(row[name]) for name in many]
            writer.writerow([row["row"], *told, *(v for one in row["top"] for v in one.values())])
        return out.getvalue()
    classes = list(first.get("probabilities", ()))
    writer.writerow(["row", *(many or head), *(f"p({c})" for c in classes)])
    for row in rows:
        told = [JOINT.join(row["labels"])] if many else [row["class"], row["probability"]]
        writer.writerow([row["row"], *told, *row["probabilities"].values()])
    return out.getvalue()


def _json_lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS = {".csv": _csv, ".jsonl": _json_lines}
