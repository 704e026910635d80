"""``resnorm predict RUN INPUT``: class and probability of each row."""

import argparse
import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.cli.compilation_cache import keep_programs
from resnorm_jax.cli.outputs import check_file
from resnorm_jax.cli.predict_explain import check_page, write_explanation
from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.schema import KEY_SEED, POSITIVE

if TYPE_CHECKING:
    import numpy as np

Rows = list[dict[str, Any]]


def main(argv: list[str]) -> int:
    """Predict the rows of a file; print them, or write them to --output."""
    parser = Parser(prog="resnorm predict", description="Class and probability of each row.")
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument(
        "input",
        type=Path,
        help=".ts, .npz, .csv, .tsv, .jsonl or .parquet file, or a folder of texts",
    )
    parser.add_argument("--output", type=Path, help=".csv or .jsonl file; printed if left out")
    parser.add_number(
        "--seed", int, KEY_SEED, help="which seed's checkpoint; the first if left out"
    )
    parser.add_argument("--checkpoint", choices=("best", "last"), help="as scored if left out")
    parser.add_argument("--explain", type=Path, help=".html file: why, for one row")
    parser.add_number(
        "--row", int, POSITIVE, help="which row to explain, counted from 1; the first if left out"
    )
    chosen = parser.parse_args(argv)
    if chosen.output:
        check_file("--output", chosen.output, WRITERS)
    suffix = chosen.output.suffix if chosen.output else ".csv"
    if chosen.explain:
        check_page(chosen.explain)
    else:
        parser.not_read(chosen, ["row"], "without --explain=FILE.html")
    _predict(chosen, suffix)
    return 0


def _predict(chosen: argparse.Namespace, suffix: str) -> None:
    # Imported here: --help and mistakes should not wait for jax.
    with ending_at_once():
        from rich.console import Console

        from resnorm_jax.data.inputs import read_inputs
        from resnorm_jax.reporting.files import write_bytes
        from resnorm_jax.reporting.tables import runtime_line
        from resnorm_jax.training.saved_run import load_trained

    trained = load_trained(chosen.run, chosen.seed, chosen.checkpoint)
    examples = read_inputs(chosen.input, trained.meta)
    keep_programs()
    console = Console()
    if chosen.explain or chosen.output:
        console.print(runtime_line(), highlight=False)
    if chosen.explain:
        write_explanation(trained, examples, chosen.row or 1, chosen.explain, chosen.run, console)
        if chosen.output is None:
            return
    rows = predictions(trained.log_probs(examples), trained.meta["classes"])
    text = WRITERS[suffix](rows)
    if chosen.output is None:
        print(text, end="")
        return
    write_bytes(chosen.output, text.encode())
    console.print(f"{len(rows)} rows to {chosen.output}", highlight=False)


def predictions(log_probs: "np.ndarray", classes: list[str]) -> Rows:
    """Return a dictionary for each row: its number from 1 on, class, probability, and every class'."""
    with ending_at_once():
        import numpy as np

    probs = np.exp(log_probs.astype(np.float64))
    return [
        {
            "row": number,
            "class": classes[int(p.argmax())],
            "probability": round(float(p.max()), 6),
            "probabilities": {c: round(float(v), 6) for c, v in zip(classes, p, strict=True)},
        }
        for number, p in enumerate(probs, start=1)
    ]


def _csv(rows: Rows) -> str:
    out = io.StringIO()
    classes = list(rows[0]["probabilities"]) if rows else []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "class", "probability", *(f"p({c})" for c in classes)])
    for row in rows:
        writer.writerow(
            [row["row"], row["class"], row["probability"], *row["probabilities"].values()]
        )
    return out.getvalue()


def _json_lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


WRITERS = {".csv": _csv, ".jsonl": _json_lines}
