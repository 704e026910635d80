"""What is said of runs, against figures worked out by hand."""

import math

import numpy as np
import pytest

from resnorm_jax.lab.compare.records import (
    final_loss,
    label_entropy,
    run_record,
    status,
    summarize,
    thinned,
    value,
)


def test_entropy_of_labels():
    np.testing.assert_allclose(label_entropy(np.array([0, 0, 1, 1])), math.log(2))
    want = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    np.testing.assert_allclose(label_entropy(np.array([3, 3, 3, 7])), want)


def test_final_loss_is_of_the_last_tenth():
    assert final_loss(np.arange(40.0)) == 37.5
    assert final_loss(np.array([3.0, 1.0])) == 1.0


@pytest.mark.parametrize(
    ("losses", "want"),
    [([1.0, 0.89], "ok"), ([0.1, 0.91], "not_trained"), ([1.0, math.nan, 0.5], "diverged")],
)
def test_status(losses, want):
    assert status(np.array(losses), entropy=1.0) == want


def test_thinning_keeps_the_mean_and_short_curves():
    curve = np.random.default_rng(0).normal(size=120)
    np.testing.assert_allclose(thinned(curve, 60), curve.reshape(60, 2).mean(1))
    assert thinned(np.array([1.0, 2.0]), 60) == [1.0, 2.0]


def record(name, depth, seed, rate, loss, accuracy, state="ok"):
    return {
        "arrangement": name, "depth": depth, "seed": seed, "learning_rate": rate, "status": state,
        "final_loss": loss, "accuracy": accuracy, "log_loss": loss,
    }  # fmt: skip


def test_summary_chooses_by_training_loss_and_counts_failures():
    records = [
        record("a", 3, 0, 0.1, 0.2, 0.5),
        record("a", 3, 1, 0.1, 0.4, 0.7),
        record("a", 3, 0, 1.0, 0.9, 1.0),  # a better score, a worse training loss
        record("a", 3, 1, 1.0, None, None, "diverged"),
        record("b", 3, 0, 0.1, 0.1, 0.9),
    ]
    first, second = summarize(records, entropy=2.0)
    assert (first["arrangement"], first["depth"], first["learning_rate"]) == ("a", 3, 0.1)
    np.testing.assert_allclose(first["accuracy"][0], 0.6)
    # Rate 1: (0.9 + 2) / 2 is 1.15 above the best rate's 0.3; the best is 0 above itself.
    np.testing.assert_allclose(first["sensitivity"], (1.45 - 0.3) / 2)
    assert first["failed"][0] == first["diverged"][0] == 0.25
    assert second["runs"] == 1
    assert second["sensitivity"] == 0.0


def test_a_run_record_is_of_its_losses():
    made = run_record(np.array([3.0, 2.0, 1.0]), {"accuracy": 0.5, "log_loss": 1.5}, 2.0)
    assert (made["final_loss"], made["area"], made["status"], made["steps"]) == (1, 2, "ok", 3)
    assert value({"final_loss": None}, "final_loss") == math.inf
