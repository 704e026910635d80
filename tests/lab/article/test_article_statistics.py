"""Statistics of the article's claims against slow, plain oracles, and verdicts both ways."""

import math

import numpy as np
import pytest

from resnorm_jax.lab.article import statistics
from resnorm_jax.lab.article.claims import CLAIMS
from resnorm_jax.lab.article.sections import PARTS, SUBJECTS, subject
from resnorm_jax.lab.article.verdicts import OPERATORS, Check, Rule


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_band_by_sorting():
    curves = normal(101, 3)
    low, high = statistics.band(curves, (0.1, 0.9))
    ordered = np.sort(curves, axis=0)
    np.testing.assert_allclose(low, ordered[10])
    np.testing.assert_allclose(high, ordered[90])


def test_share_inside_counts_its_ends():
    low, high = np.zeros(4), np.ones(4)
    assert statistics.share_inside(np.array([0.0, 1.0, 1.1, np.nan]), low, high) == 0.5


def test_steps_to_is_the_first_look_that_reaches():
    losses = np.array([[3.0, 1.0, 2.0, 0.5], [3, 3, 3, 3], [np.nan, np.nan, 0.9, np.nan]])
    assert statistics.steps_to(losses, 1.0, every=5).tolist() == [5.0, np.inf, 10.0]


def test_median_ratio_and_its_interval():
    over, under = 10 * np.exp(0.1 * normal(40)), 5 * np.exp(0.1 * normal(40, seed=1))
    ratio, low, high = statistics.median_ratio(over, under)
    assert ratio == np.median(over) / np.median(under)
    assert low < ratio < high
    assert 1.7 < low < 2 < high < 2.3
    assert statistics.median_ratio(np.full(5, 6.0), np.full(5, 2.0)) == (3, 3, 3)


def test_median_ratio_where_runs_never_arrive():
    never, some = np.full(5, np.inf), np.full(5, 2.0)
    assert statistics.median_ratio(never, some) == (np.inf, np.inf, np.inf)
    assert statistics.median_ratio(some, never) == (0, 0, 0)
    assert all(map(math.isnan, statistics.median_ratio(never, never)))


def test_decades_and_factor_per_layer():
    norms = 2.0 ** -np.arange(11)[None]  # halves from the first layer to the last
    assert statistics.decades(norms)[0] == pytest.approx(10 * math.log10(2))
    assert statistics.factor_per_layer(norms)[0] == pytest.approx(2)
    assert statistics.factor_per_layer(norms[:, ::-1])[0] == pytest.approx(0.5)
    gone = np.array([[0.0, 1.0]])
    assert statistics.decades(gone)[0] == pytest.approx(-38)
    assert statistics.decades(np.array([[np.inf, 1.0]]))[0] == pytest.approx(38)


def test_diverged():
    losses = np.array([[2.0, 1.0], [2, 2], [2, 3], [2, np.nan], [np.inf, 1], [2, np.inf]])
    assert statistics.diverged(losses).tolist() == [False, True, True, True, False, True]


def test_drift_by_loops():
    means, variances = normal(2, 4, 3, 5), np.exp(normal(2, 4, 3, 5, seed=1))
    moved, grown = statistics.drift(means, variances)
    for s in range(2):
        a, b = [], []
        for t in range(3):
            for n in range(3):
                spread = math.sqrt(sum(variances[s, t, n]) / 5)
                a += [abs(means[s, t + 1, n, d] - means[s, t, n, d]) / spread for d in range(5)]
                b.append(abs(math.log(sum(variances[s, t + 1, n]) / sum(variances[s, t, n]))))
        assert moved[s] == pytest.approx(sum(a) / len(a))
        assert grown[s] == pytest.approx(sum(b) / len(b))


def test_prune_keeps_the_largest():
    weights = np.array([[0.1, -5.0], [3.0, -0.2]])
    assert statistics.prune(weights, 0.5).tolist() == [[0, -5.0], [3.0, 0]]
    assert statistics.prune(weights, 1.0) is weights
    many = normal(100, 100)
    for keep in (0.1, 0.6):
        assert np.mean(statistics.prune(many, keep) != 0) == pytest.approx(keep, abs=1e-3)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantize_has_so_many_levels_and_errs_by_half_a_step(bits):
    weights = normal(50, 50).astype(np.float32)
    rounded = statistics.quantize(weights, bits)
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    assert len(np.unique(rounded)) <= 2**bits - 1
    assert np.abs(rounded - weights).max() <= step / 2 * 1.001
    assert rounded.dtype == weights.dtype
    assert not statistics.quantize(np.zeros(3), bits).any()


# --- Verdicts ---

RULE = Rule((Check("a", ">", 1), Check("b", "<=", 2)), (Check("a", ">", 1),), "large b")


@pytest.mark.parametrize(
    ("numbers", "verdict", "kind"),
    [
        ({"a": 2, "b": 2}, "holds", "good"),
        ({"a": 2, "b": 3}, "holds within: large b", "fair"),
        ({"a": 1, "b": 2}, "does not hold", "bad"),
        ({"a": math.nan, "b": 2}, "does not hold", "bad"),
        ({"a": math.inf, "b": 2}, "holds", "good"),
    ],
)
def test_a_rule(numbers, verdict, kind):
    assert RULE.verdict(numbers) == (verdict, kind)


def extreme(check, passes):
    """A number just past the bound, on the side where the check passes, or not."""
    step = 1e-6
    for value in (check.bound - step, check.bound + step):
        if OPERATORS[check.sign](value, check.bound) == passes:
            return value
    raise AssertionError(check)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_every_claims_verdict_can_go_both_ways(claim):
    checks = {check.number: check for check in (*claim.rule.within, *claim.rule.holds)}
    good = {name: extreme(check, True) for name, check in checks.items()}
    assert claim.rule.verdict(good)[1] == "good"
    loosest = {check.number: check for check in (*claim.rule.holds, *claim.rule.within)}
    bad = {name: extreme(check, False) for name, check in loosest.items()}
    assert claim.rule.verdict(bad) == ("does not hold", "bad")
    for check in claim.rule.holds:  # each counts
        worse = {**good, check.number: extreme(check, False)}
        assert claim.rule.verdict(worse)[1] in ("fair", "bad"), check
    if claim.rule.within:
        assert claim.rule.scope
        kinds = {
            claim.rule.verdict({**good, check.number: extreme(check, False)})[1]
            for check in claim.rule.holds
        } | {claim.rule.verdict(bad | {c.number: extreme(c, True) for c in claim.rule.within})[1]}
        assert "fair" in kinds


def test_claims_are_complete():
    ids = [claim.id for claim in CLAIMS]
    assert len(set(ids)) == len(ids)
    assert {f"C{n}" for n in range(1, 9)} | {"EX", "L4", "L6"} == set(ids)
    assert {claim.part for claim in CLAIMS} == {part.key for part in PARTS}
    for claim in CLAIMS:
        assert claim.source
        assert subject(claim.section).split(" ", 1)[1:] or claim.section[0] in SUBJECTS
