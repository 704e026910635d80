"""Scores where a row has any number of labels: each is a question of its own, in NumPy.

Notation: N rows, K labels; ``p_ik = exp(log_probs[i, k])``, ``y_ik`` 1 where row i has label k, else 0.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from resnorm_jax.reporting.metrics import EVERY, expected_calibration_error

HEADLINES = EVERY
HALF = 0.5
FLOOR = float(np.log(np.finfo(np.float64).eps))


def score(
    log_probs: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    thresholds: np.ndarray | float = HALF,
) -> dict[str, Any]:
    """Score predictions; the result holds plain Python values, ready for JSON.

    A row is said to have label k where ``p_ik >= thresholds[k]``.

    Args:
      log_probs: ``[N, K]``, logarithms of probabilities, which need not sum to 1.
      labels: ``[N, K]`` of 0 and 1.
      classes: K names.
      thresholds: ``[K]``, or one for all.

    Returns:
      ``accuracy``, the share of rows whose labels are all right (subset accuracy); ``micro_f1``, of all
      pairs of row and label; ``macro_f1``, the mean over labels that occur; ``average_precision``, the
      mean over labels that rows have; ``log_loss``, ``expected_calibration_error``, over all pairs; and
      ``per_class``, a list of ``{class, precision, recall, f1, support, average_precision,
      threshold}``.

    Raises:
      ValueError: if shapes disagree, there are no rows, or a label is neither 0 nor 1.
    """
    log_probs, labels = np.asarray(log_probs, np.float64), np.asarray(labels)
    if log_probs.shape != labels.shape or labels.shape[1:] != (len(classes),) or not len(labels):
        raise ValueError(
            f"log_probs {log_probs.shape}, labels {labels.shape}, {len(classes)} classes"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 or 1 (-1 marks rows whose labels are not known)")
    true, p = labels > 0, np.exp(log_probs)
    with np.errstate(invalid="ignore"):
        said = p >= thresholds
    hits, claimed, held = (true & said).sum(0), said.sum(0), true.sum(0)
    f1 = 2 * hits / np.maximum(claimed + held, 1)
    precise = np.array([average_precision(p[:, k], true[:, k]) for k in range(len(classes))])
    occurs, some = (claimed + held) > 0, held > 0
    columns = {
        "precision": hits / np.maximum(claimed, 1),
        "recall": hits / np.maximum(held, 1),
        "f1": f1,
        "average_precision": precise,
        "threshold": np.broadcast_to(thresholds, f1.shape),
    }
    return {
        "accuracy": float((said == true).all(axis=1).mean()),
        "micro_f1": float(2 * hits.sum() / max(claimed.sum() + held.sum(), 1)),
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else 0.0,
        "average_precision": float(precise[some].mean()) if some.any() else float("nan"),
        **errors(log_probs, labels),
        "per_class": [
            {
                "class": str(name),
                **{column: float(values[k]) for column, values in columns.items()},
                "support": int(held[k]),
            }
            for k, name in enumerate(classes)
        ],
    }


def decide(
    probabilities: np.ndarray, classes: Sequence[str], thresholds: np.ndarray | float = HALF
) -> np.ndarray:
    """Return the names of each row's labels, ``[N]`` of tuples, in the order of classes."""
    said = np.asarray(probabilities) >= thresholds
    found = np.empty(len(said), object)
    for i, row in enumerate(said):
        found[i] = tuple(name for name, has in zip(classes, row, strict=True) if has)
    return found


def average_precision(p: np.ndarray, true: np.ndarray) -> float:
    """Area under precision over recall, by steps: ``sum_n (R_n - R_(n-1)) P_n``.

    P and R are those of saying the label from the n-th largest different probability on. NaN where no
    row has the label. As scikit-learn's ``average_precision_score``.

    Args:
      p: ``[N]`` probabilities.
      true: ``[N]`` booleans.
    """
    if not true.any():
        return float("nan")
    hits, said, _ = _by_cut(p, true)
    return float(np.sum(np.diff(hits, prepend=0) / true.sum() * hits / said))


def _by_cut(p: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hits, rows said, and the probability, of each different one, the largest first."""
    order = np.argsort(-p, kind="stable")
    ends = np.flatnonzero(np.diff(p[order], append=-1) != 0)
    return np.cumsum(true[order])[ends], ends + 1, p[order][ends]


def best_thresholds(log_probs: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return for each label the threshold with most F1 on these rows, halfway to the next probability.

    A label that no row has keeps 0.5. Source: Lipton, Elkan and Narayanaswamy, "Thresholding
    Classifiers to Maximize F1 Score" (2014, arXiv 1402.1892): the best one is seldom 0.5.

    Args:
      log_probs: ``[N, K]`` of rows that were held out of training.
      labels: ``[N, K]`` of 0 and 1.
    """
    pairs = zip(np.exp(log_probs.astype(np.float64)).T, labels.T > 0, strict=True)
    return [_best_threshold(p, true) for p, true in pairs]


def best_common_threshold(log_probs: np.ndarray, labels: np.ndarray) -> list[float]:
    """Return one threshold for all labels, K times: that with most micro F1 on these rows.

    The best ones of each label raise macro F1, but can cost much micro F1: a label that the model
    cannot tell has most F1 where nearly every row is said to have it. As `best_thresholds` otherwise.
    """
    p = np.exp(log_probs.astype(np.float64))
    return [_best_threshold(p.ravel(), labels.ravel() > 0)] * p.shape[1]


THRESHOLDS = {"validation": best_thresholds, "validation_micro": best_common_threshold}


def _best_threshold(p: np.ndarray, true: np.ndarray) -> float:
    if not true.any():
        return HALF
    hits, said, values = _by_cut(p, true)
    best = int((2 * hits / (said + true.sum())).argmax())
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)


def errors(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return ``log_loss`` and ``expected_calibration_error`` over all pairs of row and label.

    The log loss is the mean of ``-y log p - (1 - y) log(1 - p)``, in nats, with the floor of
    `resnorm_jax.reporting.metrics.log_loss`. A pair's confidence is ``max(p, 1 - p)``.
    """
    has, lacks = both_sides(log_probs)
    right = np.where(has >= lacks, 1, 0) == labels
    confidence = np.exp(np.maximum(has, lacks))
    return {
        "log_loss": float(-np.maximum(np.where(labels > 0, has, lacks), FLOOR).mean()),
        "expected_calibration_error": expected_calibration_error(confidence.ravel(), right.ravel()),
    }


def both_sides(log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``log p`` and ``log(1 - p)`` in float64, the latter exact where p is near 1."""
    has = np.minimum(np.asarray(log_probs, np.float64), 0)
    with np.errstate(divide="ignore"):
        return has, np.log(-np.expm1(has))


def logits(log_probs: np.ndarray) -> np.ndarray:
    """Return ``log p - log(1 - p)``, at most 1e30 in size."""
    has, lacks = both_sides(log_probs)
    return np.clip(np.maximum(has, -1e30) - np.maximum(lacks, -1e30), -1e30, 1e30)


def calibrate(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return ``log sigmoid(z / T)`` of the logits z: what was under 0.5 stays so."""
    scaled = -logits(log_probs) / temperature
    return (-np.logaddexp(0, scaled)).astype(log_probs.dtype)


def slope(log_probs: np.ndarray, labels: np.ndarray) -> Callable[[float], float]:
    """Return the derivative of the mean log loss at temperature T, in 1 / T."""
    from scipy.special import expit  # here: no training waits for its import

    z, true = logits(log_probs), labels > 0
    return lambda sharpness: float(((expit(sharpness * z) - true) * z).mean())
