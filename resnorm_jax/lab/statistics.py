"""Intervals and rank correlations of a few runs, by SciPy."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from scipy import stats

LEVEL = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, and Student's 95 % interval of it: ``m -+ t s / sqrt(n)``.

    One value has no interval: it is NaN. A value that is not finite makes all three NaN.
    """
    x = np.asarray(values, np.float64)
    mean = float(x.mean()) if len(x) else math.nan
    if len(x) < 2 or not np.isfinite(x).all():
        return mean, math.nan, math.nan
    half = float(stats.sem(x) * stats.t.ppf((1 + LEVEL) / 2, len(x) - 1))
    return mean, mean - half, mean + half


def share_interval(hits: int, count: int) -> tuple[float, float, float]:
    """Return a share and Wilson's 95 % interval of it (Wilson 1927, eq. 3)."""
    if not count:
        return math.nan, 0.0, 1.0
    found = stats.binomtest(hits, count).proportion_ci(LEVEL, method="wilson")
    return hits / count, float(found.low), float(found.high)


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation: Pearson's of the ranks. NaN where all of one are equal."""
    with _constant_is_nan():
        return float(stats.spearmanr(a, b).statistic)


def spearman_interval(
    a: Sequence[float], b: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of `spearman`, over pairs drawn again with replacement.

    Draws of which all of one are equal have no correlation, and do not count.
    """
    x, y = np.asarray(a), np.asarray(b)
    chosen = np.random.default_rng(seed).integers(0, len(x), (draws, len(x)))
    ranks = (stats.rankdata(each[chosen], axis=1) for each in (x, y))
    with _constant_is_nan():
        found = stats.pearsonr(*ranks, axis=1).statistic
    low, high = np.nanquantile(found, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


@contextmanager
def _constant_is_nan() -> Iterator[None]:
    """What has no correlation is NaN, without SciPy's warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        yield
