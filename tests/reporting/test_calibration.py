"""One temperature: against a grid in float64, its degenerate cases, and what it leaves alone."""

import numpy as np
import pytest

from resnorm_jax.reporting.calibration import calibrate, calibration, fit_temperature
from resnorm_jax.reporting.metrics import score


def log_softmax(z):
    z = np.asarray(z, np.float64)
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def drawn(true_temperature, rows=4000, classes=4, seed=0):
    """Labels drawn from ``softmax(z)``, and the log-probabilities of ``z * true_temperature``."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, classes)) * 2
    p = np.exp(log_softmax(z))
    labels = (p.cumsum(1) < rng.random(rows)[:, None]).sum(1)
    return log_softmax(z * true_temperature), labels


def test_it_is_the_least_of_a_fine_grid():
    log_probs, labels = drawn(2.5, rows=300)
    grid = np.linspace(0.5, 6, 5501)
    losses = [-log_softmax(log_probs / t)[np.arange(300), labels].mean() for t in grid]
    assert fit_temperature(log_probs, labels) == pytest.approx(grid[np.argmin(losses)], abs=1e-3)


@pytest.mark.parametrize("wrong_by", [0.5, 1.0, 3.0])
def test_it_finds_by_how_much_a_model_is_too_sure(wrong_by):
    log_probs, labels = drawn(wrong_by)
    found = calibration(log_probs.astype(np.float32), labels)
    assert found["temperature"] == pytest.approx(wrong_by, rel=0.07)
    assert found["rows"] == 4000
    assert found["after"]["log_loss"] <= found["before"]["log_loss"]
    assert found["after"]["expected_calibration_error"] < 0.03


def test_before_is_what_the_scores_say():
    log_probs, labels = drawn(2.0, rows=100)
    scored = score(log_probs, labels, "abcd")
    before = calibration(log_probs, labels)["before"]
    assert before == {name: scored[name] for name in before}


def test_the_order_of_classes_stays_and_rows_sum_to_one():
    log_probs = drawn(2.0, rows=50)[0].astype(np.float32)
    log_probs[0] = [0, -np.inf, -np.inf, -np.inf]
    found = calibrate(log_probs, 3.7)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.argmax(1), log_probs.argmax(1))
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[1:], log_softmax(log_probs[1:] / 3.7), rtol=1e-5)
    np.testing.assert_allclose(calibrate(log_probs[1:], 1.0), log_probs[1:], atol=1e-6)


@pytest.mark.parametrize("right", [True, False])
def test_where_no_temperature_is_best_there_is_none(right):
    log_probs = log_softmax([[2.0, 0, 1], [0, 3, 1], [0, 1, 5]])
    labels = np.array([0, 1, 2] if right else [1, 0, 0])
    found = calibration(log_probs, labels)
    assert found["temperature"] is None
    assert found["after"] == found["before"]
