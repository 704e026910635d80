"""Scores, verdicts and their check, against figures worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from resnorm_jax.lab.certify.check import agreement, failed, seed_agreement, trained_losses
from resnorm_jax.lab.certify.probe import RATES, STEPS, Probe
from resnorm_jax.lab.certify.score import (
    AS_IS,
    FULL,
    NOT,
    VERDICTS,
    WARM_UP,
    Certificate,
    Thresholds,
    agreements,
    chance_score,
    gradient_ratio,
    judge,
    relative_fall,
    score,
)

B, K = 101, 10
FAR = RATES.index(4.0)
CHANCE_R = 1 / 30  # 1 / sqrt(100 * 9)
CHANCE = math.log(K)


def probe(full=0.5, far=0.5, fall=0.1, start=CHANCE, gradient=((1.0, 2.0),), alike=0.5):
    """A probe whose logits agree so after every step at each rate, and whose loss falls at both."""
    steps = np.arange(STEPS + 1) / STEPS
    agreement = np.zeros((1, len(RATES), STEPS + 1))
    agreement[0, FULL, 1:], agreement[0, FAR, 1:] = full, far
    loss = np.broadcast_to(start * (1 - fall * steps), agreement.shape)
    return Probe(
        loss=loss, agreement=agreement, gradient=np.array(gradient), alike=np.array([alike])
    )


def test_falls_are_relative_bounded_and_bear_nan():
    losses = np.full((1, 2, STEPS + 1), 4.0)
    losses[0, 0, 1:4] = 100.0, np.nan, np.inf
    losses[0, 1, STEPS] = 3.0
    found = relative_fall(replace(probe(), loss=losses))
    assert found.shape == (1, 2, STEPS)
    np.testing.assert_allclose(found[0, 0], [-1, -1, -1, *[0.0] * (STEPS - 3)])
    np.testing.assert_allclose(found[0, 1], [*[0.0] * (STEPS - 1), 0.25])


def test_the_score_is_of_the_lowest_loss_of_each_draw_at_any_rate():
    losses = np.full((2, len(RATES), STEPS + 1), CHANCE)
    losses[:, :, 0] = 0.0  # what was there before is not read
    losses[0, FULL, 3], losses[0, FAR, 2] = 0.5 * CHANCE, 0.2 * CHANCE
    losses[1, FULL, 3], losses[1, FAR, 1:] = 0.4 * CHANCE, np.nan
    both = replace(probe(), loss=losses)
    np.testing.assert_allclose(score(both, K), (0.8 + 0.6) / 2)
    losses[1] = np.nan
    assert score(both, K) == -math.inf


def test_agreements_are_means_over_draws_after_the_first_look():
    agreed = np.zeros((2, len(RATES), STEPS + 1))
    agreed[:, :, 0] = 0.9
    agreed[0, FAR, 1:], agreed[1, FAR, 1], agreed[1, FAR, 2] = 0.4, 0.8, np.nan
    found = agreements(replace(probe(), agreement=agreed))
    assert found.shape == (len(RATES), STEPS)
    np.testing.assert_allclose(found[FAR, :3], [0.6, 0.2, 0.2])


@pytest.mark.parametrize(
    ("full", "far", "fall", "verdict"),
    [
        (0.3, 0.3, 0.2, AS_IS),
        (0.3, 0.01, 0.2, AS_IS),  # at one rate is enough
        (0.01, 0.3, 0.2, AS_IS),
        (0.3, 0.3, -0.2, WARM_UP),
        (0.05, 0.05, 0.2, NOT),
        (0.05, 0.05, -0.2, NOT),
        (math.nan, math.nan, math.nan, NOT),
    ],
)
def test_verdicts(full, far, fall, verdict):
    found = judge("a", probe(full, far, fall), B, K)
    assert found.verdict == verdict
    assert found.reason
    assert "\n" not in found.reason
    words = {AS_IS: "lower the loss by 20 %", WARM_UP: "raise the loss by 20 %"}
    assert words.get(verdict, "do not tell the classes apart") in found.reason


def test_thresholds_turn_the_verdict():
    seen = probe(0.2, 0.05, fall=-0.1)
    assert judge("a", seen, B, K).verdict == WARM_UP
    assert judge("a", seen, B, K, Thresholds(deviations=0.201 / CHANCE_R)).verdict == NOT
    assert judge("a", seen, B, K, Thresholds(rise=0.101)).verdict == AS_IS


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gradient": ((1e-9, 1.0),)}, "the first layer's gradient is 1e-09 of the last's"),
        ({"gradient": ((1e9, 1.0),), "alike": 0.999}, "is 1e+09 of the last's"),
        ({"start": 1e4}, "the loss starts at 1e+04"),
        ({"alike": 0.999}, "cosine 0.999"),
        ({"gradient": ((0.0, 1.0),)}, "is 0e+00 of the last's"),
    ],
)
def test_reasons_name_what_may_be_wrong(given, words):
    found = judge("a", probe(0.0, 0.0, **given), B, K)
    assert found.verdict == NOT
    assert words in found.reason
    assert found.reason.count(";") == 1


def test_no_cause_is_made_up():
    assert ";" not in judge("a", probe(0.0, 0.0), B, K).reason
    closed = judge("a", probe(0.0, 0.0, gradient=((0.0, 0.0),)), B, K)
    assert ";" not in closed.reason


def test_gradient_ratio_is_a_geometric_mean():
    both = replace(probe(), gradient=np.array([[1.0, 7, 100], [100, 7, 1.0]]))
    np.testing.assert_allclose(gradient_ratio(both), 1.0)


def certificate(name, value, verdict=AS_IS):
    return Certificate(
        name=name, score=value, verdict=verdict, reason="", loss=1, fall=0, agreement=value,
        gradient_ratio=1, alike=0,
    )  # fmt: skip


def run(name, loss, state="ok", depth=24):
    return {"arrangement": name, "depth": depth, "final_loss": loss, "status": state}


def test_agreement_counts_order_and_verdicts():
    records = [
        run("a", 0.1), run("a", 0.3), run("a", 9.0, depth=3),
        run("b", 0.4), run("b", None, "diverged"), run("b", None, "diverged"),
        run("c", 2.3, "not_trained"), run("c", 2.3, "not_trained"),
        run("d", 0.15), run("d", 0.15),
    ]  # fmt: skip
    losses = trained_losses(records, 24)
    np.testing.assert_allclose([losses[n] for n in "acd"], [0.2, 2.3, 0.15])
    assert losses["b"] == math.inf
    assert failed(records, 24) == {"a": False, "b": True, "c": True, "d": False}

    scored = [
        certificate("a", 0.9), certificate("b", 0.1, NOT), certificate("c", 0.3),
        certificate("d", 0.5, NOT), certificate("unknown", 1.0),
    ]  # fmt: skip
    found = agreement(scored, records, 24)
    assert found["arrangements"] == 4
    want = stats.spearmanr([0.9, 0.1, 0.3, 0.5], [-0.2, -1e9, -2.3, -0.15]).statistic
    np.testing.assert_allclose(found["spearman"], want)
    assert (found["not_said"], found["not_right"], found["missed"]) == (2, 1, ["c"])
    assert [row["arrangement"] for row in found["rows"]] == ["a", "d", "c", "b"]
    assert [row["trained_rank"] for row in found["rows"]] == [2, 1, 3, 4]


def test_seeds_are_compared_arrangement_by_arrangement():
    def of(seed, **losses):
        return [{**run(name, loss), "seed": seed} for name, loss in losses.items()]

    first, second = of(0, a=0.1, b=0.2, c=0.3, d=0.4), of(1, a=0.1, b=0.2, c=0.4, d=0.3)
    names = ["a", "b", "c", "d"]
    want = stats.spearmanr([1, 2, 3, 4], [1, 2, 4, 3]).statistic
    np.testing.assert_allclose(seed_agreement(first + second, 24, names), want)
    third = of(2, a=0.4, b=0.3, c=0.2, d=0.1)
    pairs = [want, -1.0, stats.spearmanr([1, 2, 4, 3], [4, 3, 2, 1]).statistic]
    np.testing.assert_allclose(seed_agreement(first + second + third, 24, names), np.mean(pairs))
    # A seed that has not got to all of them does not count; another depth neither.
    assert math.isnan(seed_agreement(first + second[:3], 24, names))
    assert math.isnan(seed_agreement(first + second, 3, names))
    np.testing.assert_allclose(seed_agreement(first + second[:3], 24, names[:3]), 1.0)


def test_chance_is_what_shuffled_labels_give():
    assert chance_score(B, K) == pytest.approx(CHANCE_R)
    rng = np.random.default_rng(0)
    rows, classes = 60, 4
    z = rng.normal(size=(rows, classes))
    z = z - z.mean(0)
    z = z - z.mean(1, keepdims=True)
    labels = np.arange(rows) % classes
    found = []
    for _ in range(2000):
        y = np.eye(classes)[rng.permutation(labels)] - 1 / classes
        found.append((z * y).sum() / np.linalg.norm(z) / np.linalg.norm(y))
    assert np.std(found) == pytest.approx(chance_score(rows, classes), rel=0.1)


def test_verdicts_are_three():
    assert len(set(VERDICTS)) == 3
