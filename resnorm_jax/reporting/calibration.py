"""One temperature that makes a classifier's probabilities say how often it is right.

Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (ICML 2017,
arXiv 1706.04599), section 4.2. The temperature is fitted on rows that were held out of training.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from resnorm_jax.data.row_arrays import blocks
from resnorm_jax.reporting import many_labels
from resnorm_jax.reporting.metrics import expected_calibration_error, log_loss, predicted

COLDEST, HOTTEST = 1e-3, 1e3
LOWEST = -1e30  # in place of the logarithm of a probability of 0


def calibrate(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return ``log softmax(log_probs / T)``: the same order of classes, other probabilities.

    Logits give the same as their log-probabilities, which differ from them by a constant of the row.

    Args:
      log_probs: ``[N, K]``; ``-inf`` is allowed.
      temperature: T, over 0; over 1 it makes the model less sure.

    Returns:
      ``[N, K]`` of the dtype of ``log_probs``, computed in float64.
    """
    found = np.empty_like(log_probs)
    for block in blocks(len(log_probs)):
        scaled = np.maximum(np.asarray(log_probs[block], np.float64), LOWEST) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        scaled -= np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        found[block] = scaled
    return found


def fit_temperature(log_probs: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the temperature with the least mean negative log-likelihood.

    ``T = argmin_T -1/N sum_i log softmax(z_i / T)[y_i]``, which is convex in ``1 / T``.

    Args:
      log_probs: ``[N, K]`` logits or log-probabilities of held-out rows.
      labels: ``[N]`` indices of classes; or ``[N, K]`` of 0 and 1, where a row has any number of labels
        and log-probabilities are of each, whose logit is divided.

    Returns:
      T; None where no T from 0.001 to 1000 is best: if every row is right, the surer the better, and
      where the model is no better than chance, the less sure the better.
    """
    from scipy.optimize import brentq  # here: no training waits for its import

    slope = (_slope if labels.ndim == 1 else many_labels.slope)(log_probs, labels)
    low, high = 1 / HOTTEST, 1 / COLDEST
    if not slope(low) < 0 < slope(high):
        return None
    return 1 / float(brentq(slope, low, high, xtol=1e-12, rtol=1e-10))


def _slope(log_probs: np.ndarray, labels: np.ndarray) -> Callable[[float], float]:
    """Return the derivative of the mean negative log-likelihood in 1 / T."""
    by_row = np.empty(len(labels))

    def slope(sharpness: float) -> float:
        for block in blocks(len(labels)):
            z = np.maximum(np.asarray(log_probs[block], np.float64), LOWEST)
            z -= z.max(axis=1, keepdims=True)
            own = np.take_along_axis(z, labels[block, None], axis=1)[:, 0]
            weights = np.exp(sharpness * z)
            weights /= weights.sum(axis=1, keepdims=True)
            by_row[block] = (weights * z).sum(axis=1) - own
        return float(by_row.mean())

    return slope


def calibration(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Fit a temperature; say what it does to the rows that it is fitted on.

    Returns:
      ``temperature`` (None where none is best), ``rows``, and ``before`` and ``after``, each with
      ``log_loss`` and ``expected_calibration_error``; without a temperature both are the same.
    """
    temperature = fit_temperature(log_probs, labels)
    by = calibrate if labels.ndim == 1 else many_labels.calibrate
    after = log_probs if temperature is None else by(log_probs, temperature)
    return {
        "temperature": temperature,
        "rows": len(labels),
        "before": errors(log_probs, labels),
        "after": errors(after, labels),
    }


def errors(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return ``log_loss`` and ``expected_calibration_error``, as `score` has them."""
    if labels.ndim == 2:
        return many_labels.errors(log_probs, labels)
    said, confidence = predicted(log_probs)
    return {
        "log_loss": log_loss(log_probs, labels),
        "expected_calibration_error": expected_calibration_error(confidence, said == labels),
    }
