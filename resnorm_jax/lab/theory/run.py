"""Measure claims in order; the document that holds what was found."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.lab.theory.claim import Claim, Panel
from resnorm_jax.reporting.environment import environment
from resnorm_jax.reporting.files import to_plain
from resnorm_jax.version import __version__

REPRODUCED, NOT_REPRODUCED, NOT_MEASURED = "reproduced", "not reproduced", "not measured"
Row = dict[str, Any]
SECONDS = ("seconds", "processor_seconds")
DIGITS = 6  # significant, of numbers in the document


def measure_claim(claim: Claim, seeds: int | None = None) -> Row:
    """Measure one claim; return its row of the document.

    Args:
      claim: what to measure.
      seeds: how many seeds in place of the claim's own.
    """
    chosen = tuple(range(seeds or claim.seeds))
    row: Row = {
        "id": claim.id,
        "statement": claim.statement,
        "source": claim.source,
        "band": claim.band,
        "bounds": [asdict(bound) for bound in claim.bounds],
        "band_from": claim.why,
        "setup": claim.setup,
        "reading": claim.reading,
        "command": claim.command + (f" --seeds={seeds}" if seeds else ""),
        "seeds": list(chosen),
        "numbers": {},
        "panels": [],
    }
    began = time.perf_counter(), time.process_time()
    try:
        found = claim.measure(chosen)
    except UserError as error:  # data or an extra is missing: it must not cost the other claims
        return {**row, "verdict": NOT_MEASURED, "why": str(error), **_since(*began)}
    holds = claim.holds(found.numbers)
    return to_plain(
        {
            **row,
            "numbers": rounded(found.numbers),
            "panels": [_panel(panel) for panel in found.panels],
            "verdict": REPRODUCED if holds else NOT_REPRODUCED,
            "why": "",
            **_since(*began),
        }
    )


def measure_all(
    claims: Sequence[Claim],
    seeds: int | None = None,
    done: Callable[[Row, dict[str, Any]], None] = lambda row, document: None,
) -> dict[str, Any]:
    """Measure claims; return the document.

    Args:
      claims: in order.
      seeds: how many seeds in place of each claim's own.
      done: given each row, and the document so far, as soon as they are there.
    """
    about = {**environment(), "resnorm_jax": __version__}
    rows: list[Row] = []
    for claim in claims:
        rows.append(measure_claim(claim, seeds))
        done(rows[-1], _document(about, rows))
    return _document(about, rows)


def _document(about: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    return {
        **about,
        "claims": list(rows),
        "reproduced": sum(row["verdict"] == REPRODUCED for row in rows),
        "measured": sum(row["verdict"] != NOT_MEASURED for row in rows),
        **{name: round(sum(row[name] for row in rows), 1) for name in SECONDS},
    }


def rounded(tree: Any) -> Any:
    """Return numbers, in any nest of lists and dictionaries, with `DIGITS` significant digits."""
    if isinstance(tree, Mapping):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple, np.ndarray)):
        return [rounded(value) for value in tree]
    if isinstance(tree, (float, np.floating)):
        return float(f"{float(tree):.{DIGITS}g}")
    return tree


def _panel(panel: Panel) -> Row:
    return {key: rounded(value) for key, value in asdict(panel).items()}


def _since(began: float, worked: float) -> Row:
    """Return the seconds since; those of the processor tell more where other programs run too."""
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
    }
