"""What is kept of a run, and what is said of several."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from resnorm_jax.lab.statistics import mean_interval, share_interval

Record = dict[str, Any]
POINTS = 60  # of a curve that is kept
LAST = 0.1  # share of the steps whose mean is the final loss
# A run whose final training loss is above this share of the labels' entropy has learned nothing
# that the frequencies of the classes do not say.
CHANCE = 0.9
OK, NOT_TRAINED, DIVERGED = "ok", "not_trained", "diverged"


def label_entropy(labels: np.ndarray) -> float:
    """Return the entropy of the labels, in nats: the loss of who knows their frequencies only."""
    share = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(share * np.log(share)).sum())


def final_loss(losses: np.ndarray) -> float:
    """Return the mean loss over the last tenth of the steps."""
    return float(np.mean(losses[-max(1, round(LAST * len(losses))) :]))


def status(losses: np.ndarray, entropy: float) -> str:
    """Return ``diverged`` if a loss is not finite, ``not_trained`` above chance, else ``ok``."""
    if not np.isfinite(losses).all():
        return DIVERGED
    return OK if final_loss(losses) <= CHANCE * entropy else NOT_TRAINED


def thinned(losses: np.ndarray, points: int = POINTS) -> list[float]:
    """Return at most ``points`` means over windows of equal length; a shorter curve as it is."""
    if len(losses) <= points:
        return [float(v) for v in losses]
    edges = np.linspace(0, len(losses), points + 1).round().astype(int)
    return [float(np.mean(losses[a:b])) for a, b in pairwise(edges)]


def run_record(losses: np.ndarray, scores: Mapping[str, Any], entropy: float) -> Record:
    """Return the record of one run.

    Args:
      losses: ``[steps]`` of training.
      scores: of the scored rows: ``accuracy`` and ``log_loss``.
      entropy: of the training labels.
    """
    losses = np.asarray(losses, np.float64)
    return {
        "status": status(losses, entropy),
        "final_loss": final_loss(losses),
        "area": float(np.mean(losses)),
        "curve": thinned(losses),
        "accuracy": scores["accuracy"],
        "log_loss": scores["log_loss"],
        "steps": len(losses),
    }


def value(record: Mapping[str, Any], name: str, worst: float = math.inf) -> float:
    """Return a number of a record read from JSON, where null stands for what is not finite."""
    found = record[name]
    return worst if found is None or not math.isfinite(found) else float(found)


def summarize(records: Sequence[Record], entropy: float) -> list[Record]:
    """Return one row for each arrangement and depth.

    ``learning_rate`` is the best of the grid by mean final *training* loss over seeds, so that the
    scored rows choose nothing; the losses and scores are those of that rate, with 95 % intervals
    over seeds. ``sensitivity`` is the mean over rates of the final loss above the best rate's,
    both no more than the labels' entropy (Wortsman et al. 2023, arXiv 2309.14322, section 3.1, with
    the entropy in place of the loss at initialization). ``failed`` is the share of all runs that
    diverged or did not train.
    """
    cells: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        cells.setdefault((record["arrangement"], record["depth"]), []).append(record)
    return [
        {"arrangement": name, "depth": depth, **_cell(runs, entropy)}
        for (name, depth), runs in cells.items()
    ]


def _cell(runs: Sequence[Record], entropy: float) -> Record:
    rates = sorted({run["learning_rate"] for run in runs})
    by_rate = {rate: [r for r in runs if r["learning_rate"] == rate] for rate in rates}
    loss = {
        rate: float(np.mean([min(value(r, "final_loss"), entropy) for r in some]))
        for rate, some in by_rate.items()
    }
    best = min(rates, key=lambda rate: loss[rate])
    chosen = by_rate[best]
    failed = sum(run["status"] != OK for run in runs)
    diverged = sum(run["status"] == DIVERGED for run in runs)
    return {
        "learning_rate": best,
        "final_loss": mean_interval([value(r, "final_loss") for r in chosen]),
        "accuracy": mean_interval([value(r, "accuracy", 0.0) for r in chosen]),
        "log_loss": mean_interval([value(r, "log_loss") for r in chosen]),
        "sensitivity": float(np.mean([loss[rate] - loss[best] for rate in rates])),
        "loss_by_rate": {str(rate): loss[rate] for rate in rates},
        "failed": share_interval(failed, len(runs)),
        "diverged": share_interval(diverged, len(runs)),
        "runs": len(runs),
    }
