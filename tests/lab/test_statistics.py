"""Intervals and rank correlations against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from resnorm_jax.lab.statistics import (
    T95,
    mean_interval,
    ranks,
    share_interval,
    spearman,
    spearman_interval,
)


@pytest.mark.parametrize("count", [2, 3, 7, 21, 400])
def test_mean_interval(count):
    x = np.random.default_rng(count).normal(3, 2, count)
    found = mean_interval(x)
    want = stats.t.interval(0.95, count - 1, loc=x.mean(), scale=stats.sem(x))
    np.testing.assert_allclose(found, (x.mean(), *want), rtol=2e-3)


def test_quantiles_of_t():
    want = [stats.t.ppf(0.975, n) for n in range(1, len(T95) + 1)]
    np.testing.assert_allclose(T95, want, atol=5e-4)


def test_mean_interval_of_too_little():
    assert mean_interval([2.0])[0] == 2.0
    assert all(math.isnan(v) for v in mean_interval([2.0])[1:])
    assert all(not math.isfinite(v) for v in mean_interval([2.0, math.inf]))


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (3, 9), (9, 9), (40, 100)])
def test_share_interval(hits, count):
    want = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(share_interval(hits, count), (hits / count, *want), atol=1e-6)


def test_spearman_with_ties():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 6, 30), rng.integers(0, 6, 30)
    np.testing.assert_array_equal(ranks(a), stats.rankdata(a))
    np.testing.assert_allclose(spearman(a, b), stats.spearmanr(a, b).statistic, rtol=1e-12)
    assert spearman([1, 2, 3], [1, 4, 9]) == 1.0
    assert spearman([1, 2, 3], [1, -4, -9]) == -1.0
    assert math.isnan(spearman([1, 1], [1, 2]))


def test_spearman_interval_holds_the_truth_and_shrinks():
    rng = np.random.default_rng(2)
    a = rng.normal(size=400)
    b = a + rng.normal(size=400)
    low, high = spearman_interval(a, b)
    assert low < spearman(a, b) < high
    few = spearman_interval(a[:20], b[:20])
    assert few[1] - few[0] > 2 * (high - low)
