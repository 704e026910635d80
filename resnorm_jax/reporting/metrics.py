"""Scores of a classifier from its log probabilities, in NumPy.

Notation: N rows, K classes; ``p_i = exp(log_probs[i])``, ``y_i = labels[i]``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.data.row_arrays import blocks

ECE_BINS = 15
"""Equal-width confidence bins, as in Guo et al. (2017), section 4."""

HEADLINES = ("accuracy", "macro_f1", "log_loss", "expected_calibration_error")
"""The scores that are averaged over seeds."""


EVERY = (
    "accuracy", "micro_f1", "macro_f1", "average_precision", "log_loss",
    "expected_calibration_error",
)  # fmt: skip
"""Those and what is scored where a row has any number of labels, in the order of tables."""


def score(log_probs: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Score predictions; the result holds plain Python values, ready for JSON.

    The prediction is ``argmax_k log_probs[i, k]``, the lowest index on a tie. NaN never wins the
    argmax against a number, and shows as a NaN log loss and calibration error.

    Args:
      log_probs: ``[N, K]`` normalized log probabilities; ``-inf`` is allowed.
      labels: ``[N]`` integer class indices in ``0..K-1``.
      classes: K class names.

    Returns:
      ``accuracy``, ``macro_f1``, ``log_loss``, ``expected_calibration_error``, ``per_class`` (a
      list of ``{class, precision, recall, f1, support}``), ``confusion`` (``[K][K]``, rows true).

    Raises:
      ValueError: if shapes disagree, there are no rows, or a label is outside ``0..K-1``.
    """
    log_probs, labels = np.asarray(log_probs), np.asarray(labels)
    _check(log_probs, labels, classes)
    said, confidence = predicted(log_probs)
    matrix = confusion_matrix(labels, said, len(classes))
    return {
        "accuracy": float(np.mean(said == labels)),
        "macro_f1": macro_f1(matrix),
        "log_loss": log_loss(log_probs, labels),
        "expected_calibration_error": expected_calibration_error(confidence, said == labels),
        "per_class": per_class(matrix, classes),
        "confusion": matrix.tolist(),
    }


def predicted(log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the predictions of `score`, ``[N]`` int32, and their probabilities, ``[N]`` float64."""
    said = np.empty(len(log_probs), np.int32)
    confidence = np.empty(len(log_probs))
    for block in blocks(len(log_probs)):
        part = log_probs[block].astype(np.float64)
        confidence[block] = np.exp(part.max(axis=1))
        said[block] = np.where(np.isnan(part), -np.inf, part).argmax(axis=1)
    return said, confidence


def _check(log_probs: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raise a ValueError where the arrays cannot be scored together."""
    expected = (len(labels), len(classes))
    if log_probs.shape != expected or labels.ndim != 1:
        raise ValueError(f"log_probs {log_probs.shape} and labels {labels.shape}, not {expected}")
    if not len(labels):
        raise ValueError("no rows to score")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {labels.dtype}")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(
            f"labels span {labels.min()}..{labels.max()}, outside 0..{len(classes) - 1} "
            "(-1 marks rows whose label is not known: leave them out)"
        )


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, size: int) -> np.ndarray:
    """Count ``M[a, b] = #{i : y_i = a, prediction_i = b}``; ``[K, K]`` integers, rows true."""
    matrix = np.zeros(size * size, np.int64)
    for block in blocks(len(labels)):
        pairs = labels[block].astype(np.int64) * size + predictions[block]
        matrix += np.bincount(pairs, minlength=size * size)
    return matrix.reshape(size, size)


def _precision_recall_f1(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``[K]`` of ``TP/(TP+FP)``, ``TP/(TP+FN)`` and ``2TP/(2TP+FP+FN)``; 0/0 counts as 0."""
    hits = np.diag(matrix).astype(np.float64)
    predicted, actual = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(actual, 1)
    return precision, recall, 2 * hits / np.maximum(predicted + actual, 1)


def per_class(matrix: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return ``{class, precision, recall, f1, support}`` of each class of ``[K, K]`` counts."""
    columns = zip(classes, *_precision_recall_f1(matrix), matrix.sum(axis=1), strict=True)
    return [
        {
            "class": str(name),
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in columns
    ]


def macro_f1(matrix: np.ndarray) -> float:
    """Mean F1 over the classes that occur among the labels or the predictions.

    A class that nobody has and nobody predicts has no F1 and is left out, so that a small split is
    not punished for the classes it lacks. Equal to scikit-learn's
    ``f1_score(average="macro", zero_division=0)`` with its default ``labels``.
    """
    occurs = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    return float(_precision_recall_f1(matrix)[2][occurs].mean())


def log_loss(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of ``-log max(p_i[y_i], eps)`` in nats, with ``eps`` that of float64 (2.2e-16).

    The floor, scikit-learn's, keeps one row of probability zero from making the mean infinite: such
    a row costs 36.04.
    """
    log_probs, labels = np.asarray(log_probs), np.asarray(labels)
    chosen = np.empty(len(labels))
    floor = np.log(np.finfo(np.float64).eps)
    for block in blocks(len(labels)):
        own = np.take_along_axis(log_probs[block], labels[block, None], axis=1)[:, 0]
        chosen[block] = np.maximum(own.astype(np.float64), floor)
    return float(-chosen.mean())


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = ECE_BINS
) -> float:
    """Expected calibration error: ``sum_m |B_m|/N * |acc(B_m) - conf(B_m)|``.

    ``B_m`` holds the rows whose confidence lies in ``((m-1)/M, m/M]``. Source: Guo, Pleiss, Sun and
    Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017), equation 3.

    Args:
      confidence: ``[N]`` probability of the predicted class.
      correct: ``[N]`` booleans, whether the prediction is right.
      bins: M.
    """
    edges, gaps = np.linspace(0.0, 1.0, bins + 1), np.zeros(bins)
    for block in blocks(len(confidence)):
        # Only inner edges: rounding may carry a confidence a little past 1, and it belongs to the last.
        bin_of = np.digitize(confidence[block], edges[1:-1], right=True)
        # |B_m| cancels: |B_m| * |acc - conf| = |sum of (correct - confidence) over B_m|.
        np.add.at(gaps, bin_of, correct[block] - confidence[block])  # one row after another
    return float(np.abs(gaps).sum() / len(confidence))


def summarize_seeds(scores: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Summarize the headline scores over seeds.

    ``sd`` is the sample standard deviation ``sqrt(sum (x - mean)^2 / (n - 1))``; 0.0 for one seed.

    Args:
      scores: one result of ``score`` for each seed; None (a NaN that went through JSON) is NaN.

    Returns:
      ``{name: {"mean", "sd", "min", "max"}}`` for each of the scores' `headlines`.
    """
    if not scores:
        raise ValueError("no seeds to summarize")
    return {name: _spread([_number(s[name]) for s in scores]) for name in headlines(scores)}


def headlines(scores: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the scores that are averaged over seeds: what the tables of results show."""
    return tuple(name for name in EVERY if name in scores[0])


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }
