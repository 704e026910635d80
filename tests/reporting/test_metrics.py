import math

import numpy as np
import pytest

from resnorm_jax.reporting.metrics import (
    expected_calibration_error,
    score,
    summarize_seeds,
)


def random_case(seed, rows=200, size=5):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, size, rows)
    logits = rng.normal(size=(rows, size)) * 2
    logits[np.arange(rows), labels] += 1
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs, labels, [f"c{k}" for k in range(size)]


def slow_ece(log_probs, labels, bins=15):
    rows = [
        (math.exp(max(row)), int(np.argmax(row)) == y)
        for row, y in zip(log_probs, labels, strict=True)
    ]
    total = 0.0
    for m in range(1, bins + 1):
        inside = [(c, ok) for c, ok in rows if (m - 1) / bins < c <= m / bins]
        if inside:
            accuracy = sum(ok for _, ok in inside) / len(inside)
            confidence = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(rows) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_scikit_learn(seed):
    sk = pytest.importorskip("sklearn.metrics")
    log_probs, labels, classes = random_case(seed)
    predicted = log_probs.argmax(axis=1)
    got = score(log_probs, labels, classes)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted), abs=1e-12)
    assert got["macro_f1"] == pytest.approx(
        sk.f1_score(labels, predicted, average="macro", zero_division=0), abs=1e-12
    )
    loss = sk.log_loss(labels, np.exp(log_probs), labels=range(5))
    assert got["log_loss"] == pytest.approx(loss, abs=1e-12)
    assert got["confusion"] == sk.confusion_matrix(labels, predicted, labels=range(5)).tolist()
    columns = sk.precision_recall_fscore_support(
        labels, predicted, labels=range(5), zero_division=0
    )
    rows = [[r["precision"], r["recall"], r["f1"], r["support"]] for r in got["per_class"]]
    np.testing.assert_allclose(rows, np.transpose(columns), atol=1e-12)
    assert [r["class"] for r in got["per_class"]] == classes


def test_macro_f1_leaves_out_only_classes_that_never_occur():
    sk = pytest.importorskip("sklearn.metrics")
    # Class 2 occurs among predictions only (F1 0), class 3 nowhere.
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    got = score(np.log(np.eye(4)[predicted] * 0.96 + 0.01), labels, "abcd")
    assert got["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    expected = sk.f1_score(labels, predicted, average="macro", zero_division=0)
    assert got["macro_f1"] == pytest.approx(expected)
    assert got["per_class"][3] == {
        "class": "d",
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "support": 0,
    }


@pytest.mark.parametrize("seed", range(3))
def test_calibration_error_agrees_with_a_slow_oracle(seed):
    log_probs, labels, classes = random_case(seed)
    got = score(log_probs, labels, classes)["expected_calibration_error"]
    assert got == pytest.approx(slow_ece(log_probs, labels), abs=1e-12)


def test_calibration_error_by_hand():
    # Bins of width 1/2, closed above: {0.5} and {0.75, 1.0}; gaps |1 - 0.5|/3 and |1 - 1.75|/3.
    confidence, correct = np.array([0.5, 0.75, 1.0]), np.array([True, True, False])
    got = expected_calibration_error(confidence, correct, bins=2)
    assert got == pytest.approx((0.5 + 0.75) / 3)


def test_calibration_bins_are_closed_above():
    confidence, correct = np.array([0.5, 0.6]), np.array([True, False])
    # Apart, the gaps add (0.5 + 0.6)/2; in one bin they would cancel to 0.1/2.
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.55)


def test_confidence_a_little_past_one_is_in_the_last_bin():
    # In one bin the gaps 0.04 and -1 partly cancel.
    got = expected_calibration_error(np.array([0.96, 1.0 + 1e-9]), np.array([True, False]))
    assert got == pytest.approx(0.96 / 2)


def test_impossible_rows_cost_the_floor():
    sk = pytest.importorskip("sklearn.metrics")
    with np.errstate(divide="ignore"):
        log_probs = np.log([[1.0, 0.0], [0.25, 0.75]])
    got = score(log_probs, np.array([1, 1]), "ab")
    eps = np.finfo(np.float64).eps
    assert got["log_loss"] == pytest.approx(-(math.log(eps) + math.log(0.75)) / 2)
    assert got["log_loss"] == pytest.approx(sk.log_loss([1, 1], np.exp(log_probs), labels=[0, 1]))
    assert math.isfinite(got["expected_calibration_error"])


def test_one_class_and_ties():
    got = score(np.zeros((3, 1)), np.zeros(3, int), ["only"])
    assert (got["accuracy"], got["macro_f1"], got["log_loss"]) == (1.0, 1.0, 0.0)
    assert got["expected_calibration_error"] == 0.0
    tied = score(np.log(np.full((2, 4), 0.25)), np.array([0, 3]), "abcd")
    assert tied["accuracy"] == 0.5
    assert tied["confusion"] == [[1, 0, 0, 0], [0] * 4, [0] * 4, [1, 0, 0, 0]]


def test_nan_shows_and_never_wins():
    log_probs = np.array([[np.nan, math.log(0.9)], [np.nan, np.nan]])
    got = score(log_probs, np.array([1, 1]), "ab")
    assert got["accuracy"] == 0.5
    assert math.isnan(got["log_loss"])
    assert math.isnan(got["expected_calibration_error"])


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2, 3), [0, 1], "log_probs"),
        ((1, 2), [0, 1], "log_probs"),
        ((0, 2), np.zeros(0, int), "no rows"),
        ((2, 2), [0, -1], "-1 marks"),
        ((2, 2), [0, 2], "outside 0..1"),
        ((2, 2), [0.0, 1.0], "integers"),
    ],
)
def test_bad_arrays_are_told(shape, labels, message):
    with pytest.raises(ValueError, match=message):
        score(np.zeros(shape), np.asarray(labels), "ab")


def test_summary_over_seeds():
    names = ("accuracy", "macro_f1", "log_loss", "expected_calibration_error")
    seeds = [dict.fromkeys(names, value) for value in (1.0, 2.0, 6.0)]
    got = summarize_seeds(seeds)
    assert set(got) == set(names)
    # mean 3, deviations -2 -1 3: variance (4 + 1 + 9) / 2 = 7.
    expected = {"mean": 3.0, "sd": pytest.approx(math.sqrt(7)), "min": 1.0, "max": 6.0}
    assert got["log_loss"] == expected
    assert summarize_seeds(seeds[:1])["accuracy"] == {"mean": 1, "sd": 0.0, "min": 1, "max": 1}
    assert math.isnan(summarize_seeds([{**seeds[0], "log_loss": None}])["log_loss"]["mean"])
    with pytest.raises(ValueError, match="no seeds"):
        summarize_seeds([])
