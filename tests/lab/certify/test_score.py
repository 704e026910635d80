"""Scores, verdicts and their check, against figures worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from resnorm_jax.lab.certify.check import agreement, failed, trained_losses
from resnorm_jax.lab.certify.probe import SHARES, Probe
from resnorm_jax.lab.certify.score import (
    AS_IS,
    NOT,
    VERDICTS,
    WARM_UP,
    Certificate,
    Thresholds,
    chance_score,
    gradient_ratio,
    judge,
    relative_fall,
    score,
)

B, K = 101, 10
CHANCE_R = 1 / 30  # 1 / sqrt(100 * 9)
CHANCE = math.log(K)
ONE = SHARES.index(1.0)


def probe(falls=None, agreed=0.5, start=CHANCE, gradient=((1.0, 2.0),), alike=0.5):
    """A probe whose loss falls by these shares, and whose logits agree so."""
    falls = np.full(len(SHARES), 0.1) if falls is None else np.asarray(falls, np.float64)
    return Probe(
        loss=np.array([start]),
        along=start * (1 - falls[None]),
        agreement=np.broadcast_to(np.asarray(agreed, np.float64), (1, len(SHARES))),
        gradient=np.array(gradient),
        alike=np.array([alike]),
    )


def test_falls_are_relative_bounded_and_bear_nan():
    falls = np.full(len(SHARES), 0.25)
    falls[0], falls[1], falls[2] = -30.0, np.nan, -np.inf
    found = relative_fall(probe(falls, start=4.0))
    np.testing.assert_allclose(found[0], [-1, -1, -1, *[0.25] * (len(SHARES) - 3)])


def test_the_score_is_of_the_best_share_of_each_draw():
    agreed = np.zeros((2, len(SHARES)))
    agreed[0, 3], agreed[1, 9], agreed[1, 4] = 0.4, 0.2, np.nan
    both = replace(probe(), agreement=agreed)
    np.testing.assert_allclose(score(both), 0.3)


@pytest.mark.parametrize(
    ("peak", "agreed", "alike", "start", "verdict"),
    [
        (0.2, 0.3, 0.5, CHANCE, AS_IS),
        (-0.2, 0.3, 0.5, CHANCE, WARM_UP),
        (-0.2, 0.05, 0.99, CHANCE, NOT),
        (-0.2, 0.05, 0.5, CHANCE, WARM_UP),  # rows differ
        (-0.2, 0.3, 0.99, CHANCE, WARM_UP),  # and are told apart
        (0.2, 0.05, 0.99, CHANCE, AS_IS),  # a step helps
        (0.2, 0.3, 0.5, 1e4, NOT),  # the loss stays far above chance
    ],
)
def test_verdicts(peak, agreed, alike, start, verdict):
    falls = np.full(len(SHARES), -0.5)
    falls[ONE], falls[2] = peak, 0.25
    found = judge("a", probe(falls, agreed, start, alike=alike), B, K)
    assert found.verdict == verdict
    assert found.reason
    assert "\n" not in found.reason
    if verdict == WARM_UP:
        assert "raises the loss by 20 %" in found.reason
        assert f"{SHARES[2]:.2g} of it lowers it by 25 %" in found.reason


def test_thresholds_turn_the_verdict():
    falls = np.full(len(SHARES), -0.1)
    seen = probe(falls, agreed=0.05, alike=0.9)
    assert judge("a", seen, B, K).verdict == WARM_UP
    assert judge("a", seen, B, K, Thresholds(alike=0.89)).verdict == NOT
    at = Thresholds(alike=0.89, deviations=0.049 / CHANCE_R)
    assert judge("a", seen, B, K, at).verdict == WARM_UP


def test_reasons_name_what_is_wrong():
    for ratio, shown in ((1e-9, "1e-09 of the last's"), (1e9, "1e+09 of the last's")):
        lost = judge("a", probe(gradient=((ratio, 1.0),)), B, K)
        assert lost.verdict == NOT
        assert shown in lost.reason
    closed = judge("a", probe(gradient=((0.0, 0.0),)), B, K)
    assert closed.verdict == AS_IS
    blind = judge("a", probe(np.full(len(SHARES), -0.1), 0.0, alike=0.999), B, K)
    assert "cosine 0.999" in blind.reason
    assert "chance has up to" in blind.reason


def test_gradient_ratio_is_a_geometric_mean():
    both = replace(probe(), gradient=np.array([[1.0, 7, 100], [100, 7, 1.0]]))
    np.testing.assert_allclose(gradient_ratio(both), 1.0)


def certificate(name, value, verdict=AS_IS):
    return Certificate(
        name=name, score=value, verdict=verdict, reason="", loss=1, fall=0, share=1, at_peak=0,
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
