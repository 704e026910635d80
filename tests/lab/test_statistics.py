"""Intervals and rank correlations against printed tables and definitions."""

import math

import numpy as np
import pytest

from resnorm_jax.lab.statistics import (
    mean_interval,
    share_interval,
    spearman,
    spearman_interval,
)

# Two-sided 95 % quantiles of Student's t by degrees of freedom, from 1, as printed in tables.
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
Z95 = 1.959964


def ranks(values):
    """Ranks from 1, the mean of theirs for equal values."""
    x = np.asarray(values, np.float64)
    return (x[None] < x[:, None]).sum(1) + ((x[None] == x[:, None]).sum(1) + 1) / 2


@pytest.mark.parametrize("count", [*range(2, len(T95) + 2), 10**5])
def test_mean_interval(count):
    x = np.random.default_rng(count).normal(3, 2, count)
    quantile = T95[count - 2] if count < 22 else Z95
    error = x.std(ddof=1) / math.sqrt(count)
    mean, low, high = mean_interval(x)
    assert mean == x.mean()
    for end, sign in ((low, -1), (high, 1)):
        assert sign * (end - mean) / error == pytest.approx(quantile, abs=5e-4)


def test_mean_interval_of_too_little():
    assert mean_interval([2.0])[0] == 2.0
    assert all(math.isnan(v) for v in mean_interval([2.0])[1:])
    assert all(not math.isfinite(v) for v in mean_interval([2.0, math.inf]))


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (3, 9), (9, 9), (40, 100), (50, 72)])
def test_share_interval(hits, count):
    """Both ends p solve ``(p - k/n)^2 = z^2 p (1 - p) / n``."""
    share, low, high = share_interval(hits, count)
    assert share == hits / count
    assert 0 <= low <= share <= high <= 1
    assert low < high
    for p in (low, high):
        assert (p - share) ** 2 == pytest.approx(Z95**2 * p * (1 - p) / count, abs=1e-7)


def test_share_interval_of_nothing():
    share, *interval = share_interval(0, 0)
    assert math.isnan(share)
    assert interval == [0, 1]


def test_spearman_with_ties():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 6, 30), rng.integers(0, 6, 30)
    want = np.corrcoef(ranks(a), ranks(b))[0, 1]
    np.testing.assert_allclose(spearman(a, b), want, rtol=1e-12)
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


def test_spearman_interval_is_of_the_draws_that_have_a_correlation():
    rng = np.random.default_rng(3)
    a, b = [3.0, 1.0, 1.0, 2.0, 2.0, 1.0], [0.0, 0.0, 0.0, 1.0, 0.0, -math.inf]
    draws = rng.integers(0, 6, (50, 6))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [np.corrcoef(*(ranks(np.array(v)[i]) for v in (a, b)))[0, 1] for i in draws]
    assert 0 < np.isnan(found).sum() < 50
    want = np.nanquantile(found, (0.025, 0.975))
    np.testing.assert_allclose(spearman_interval(a, b, 50, 3), want, rtol=1e-9)
