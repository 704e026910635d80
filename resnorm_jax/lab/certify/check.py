"""Certificates against what a grid then found: rank correlation, and verdicts that were right."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from resnorm_jax.lab.certify.score import NOT, Certificate
from resnorm_jax.lab.compare.records import OK, Record, value
from resnorm_jax.lab.statistics import share_interval, spearman, spearman_interval


def trained_losses(records: Sequence[Record], depth: int) -> dict[str, float]:
    """Return the mean final training loss of each arrangement at a depth, over seeds and rates.

    A run that diverged counts as infinitely bad: it is last, whatever its companions did.
    """
    found: dict[str, list[float]] = {}
    for record in records:
        if record["depth"] == depth:
            found.setdefault(record["arrangement"], []).append(value(record, "final_loss"))
    return {name: float(np.mean(losses)) for name, losses in found.items()}


def seed_agreement(records: Sequence[Record], depth: int, names: Sequence[str]) -> float:
    """Return how well two seeds agree on the order: the mean of Spearman's over pairs of seeds.

    What a prediction can hardly exceed. NaN for a single seed.
    """
    losses: dict[Any, dict[str, list[float]]] = {}
    for record in records:
        if record["depth"] == depth and record["arrangement"] in names:
            of_seed = losses.setdefault(record.get("seed"), {})
            of_seed.setdefault(record["arrangement"], []).append(value(record, "final_loss"))
    orders = [
        [float(np.mean(some[name])) for name in names]
        for some in losses.values()
        if set(some) == set(names)
    ]
    pairs = [spearman(a, b) for a, b in combinations(orders, 2)]
    return float(np.mean(pairs)) if pairs else math.nan


def failed(records: Sequence[Record], depth: int) -> dict[str, bool]:
    """Return whether most runs of each arrangement at a depth diverged or did not train."""
    states: dict[str, list[bool]] = {}
    for record in records:
        if record["depth"] == depth:
            states.setdefault(record["arrangement"], []).append(record["status"] != OK)
    return {name: 2 * sum(some) > len(some) for name, some in states.items()}


def agreement(
    certificates: Sequence[Certificate], records: Sequence[Record], depth: int
) -> dict[str, Any]:
    """Compare certificates with the runs of a grid at one depth.

    Returns:
      ``spearman`` between scores and the order of final training losses (1 is agreement), its 95 %
      bootstrap ``interval`` over arrangements, ``arrangements``, how many both know, ``seeds``, how
      well two seeds of the grid agree with each other (see `seed_agreement`);
      ``not_right``, ``not_said``: how many *will not train* were right, and said, with Wilson's
      interval of the share; ``missed``: arrangements that failed although nobody said so; and
      ``rows``, each with its rank by score and by loss.
    """
    losses, bad = trained_losses(records, depth), failed(records, depth)
    known = [c for c in certificates if c.name in losses]
    scores = [c.score for c in known]
    worth = [-losses[c.name] for c in known]
    said = [c.name for c in known if c.verdict == NOT]
    right = sum(bad[name] for name in said)
    return {
        "depth": depth,
        "arrangements": len(known),
        "spearman": spearman(scores, worth),
        "interval": spearman_interval(scores, worth),
        "seeds": seed_agreement(records, depth, [c.name for c in known]),
        "not_said": len(said),
        "not_right": right,
        "not_share": share_interval(right, len(said)),
        "missed": [c.name for c in known if bad[c.name] and c.name not in said],
        "rows": _rows(known, losses, bad),
    }


def _rows(
    known: Sequence[Certificate], losses: Mapping[str, float], bad: Mapping[str, bool]
) -> list[dict[str, Any]]:
    order = sorted(known, key=lambda c: losses[c.name])
    by_loss = {c.name: place for place, c in enumerate(order, start=1)}
    by_score = sorted(known, key=lambda c: -c.score)
    return [
        {
            "arrangement": c.name,
            "score": c.score,
            "verdict": c.verdict,
            "rank": place,
            "trained_rank": by_loss[c.name],
            "final_loss": losses[c.name],
            "failed": bad[c.name],
        }
        for place, c in enumerate(by_score, start=1)
    ]
