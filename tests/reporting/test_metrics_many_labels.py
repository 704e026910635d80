"""Scores where a row has any number of labels, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit
from sklearn import metrics

from resnorm_jax.reporting import many_labels
from resnorm_jax.reporting.calibration import calibration, fit_temperature

NAMES = tuple("abcd")


def case(rows=200, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 4)) * 2
    z = np.round(z) if ties else z
    y = (rng.random((rows, 4)) < expit(z * [0.3, 1, 3, 0.1] - 0.5)).astype(np.int8)
    return log_expit(z), y


@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_those_of_scikit_learn(ties):
    log_probs, y = case(ties=ties)
    p, cut = np.exp(log_probs), [0.5, 0.3, 0.7, 0.9]
    found, said = many_labels.score(log_probs, y, NAMES, np.array(cut)), p >= cut
    wanted = {
        "accuracy": metrics.accuracy_score(y, said),
        "micro_f1": metrics.f1_score(y, said, average="micro"),
        "macro_f1": metrics.f1_score(y, said, average="macro"),
        "average_precision": metrics.average_precision_score(y, p, average="macro"),
        "log_loss": np.mean([metrics.log_loss(y[:, k], p[:, k]) for k in range(4)]),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, err_msg=name)
    columns = metrics.precision_recall_fscore_support(y, said)
    for name, values in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        np.testing.assert_allclose([row[name] for row in found["per_class"]], values)
    assert [row["threshold"] for row in found["per_class"]] == cut
    assert json.loads(json.dumps(found)) == found


def test_labels_that_nobody_has():
    y = np.zeros((3, 2), np.int8)
    found = many_labels.score(np.log(np.full((3, 2), 0.2)), y, "ab")
    assert (found["accuracy"], found["micro_f1"], found["macro_f1"]) == (1, 0, 0)
    assert np.isnan(found["average_precision"])
    with pytest.raises(ValueError, match=r"0 or 1"):
        many_labels.score(np.zeros((3, 2)), y - 1, "ab")
    with pytest.raises(ValueError, match=r"shape|labels"):
        many_labels.score(np.zeros((3, 2)), y[:, :1], "ab")


def test_thresholds_have_the_most_f1():
    log_probs, y = case()
    p, found = np.exp(log_probs), many_labels.best_thresholds(log_probs, y)
    for k, threshold in enumerate(found):
        best = max(metrics.f1_score(y[:, k], p[:, k] >= c) for c in p[:, k])
        assert metrics.f1_score(y[:, k], p[:, k] >= threshold) == best
    assert many_labels.best_thresholds(log_probs, 0 * y) == [0.5] * 4


def test_one_threshold_for_all_labels_has_the_most_micro_f1():
    log_probs, y = case(60)
    p, found = np.exp(log_probs), many_labels.best_common_threshold(log_probs, y)
    best = max(metrics.f1_score(y, p >= c, average="micro") for c in p.ravel())
    assert found == [found[0]] * 4
    assert metrics.f1_score(y, p >= found[0], average="micro") == best
    assert many_labels.best_common_threshold(log_probs, 0 * y) == [0.5] * 4


def test_one_temperature_has_the_least_log_loss():
    log_probs, y = case()

    def loss(sharpness):
        z = logit(np.exp(log_probs)) * sharpness
        return -np.where(y > 0, log_expit(z), log_expit(-z)).mean()

    best = minimize_scalar(loss, (0.5, 1.0), options={"xtol": 1e-10}).x
    temperature = fit_temperature(log_probs, y)
    np.testing.assert_allclose(1 / temperature, best, rtol=1e-5)
    told = calibration(log_probs, y)
    np.testing.assert_allclose(told["after"]["log_loss"], loss(1 / temperature))
    assert told["after"]["log_loss"] < told["before"]["log_loss"]
    after = many_labels.calibrate(log_probs.astype(np.float32), temperature)
    assert after.dtype == np.float32
    np.testing.assert_array_equal(np.exp(after) >= 0.5, np.exp(log_probs) >= 0.5)
    sure = log_expit(np.where(y > 0, 5.0, -5.0))
    assert fit_temperature(sure, y) is None  # the surer the better


def test_numbers_at_the_ends():
    z = np.array([[-1e4, 800.0], [30.0, -30.0]])
    np.testing.assert_allclose(many_labels.logits(log_expit(z))[1], z[1], rtol=1e-3)
    assert np.isfinite(many_labels.calibrate(log_expit(z), 2.0)).all()
    assert np.isfinite(many_labels.score(log_expit(z), np.eye(2, dtype=int), "ab")["log_loss"])
