"""Intervals and rank correlations of a few runs."""

import math
from collections.abc import Sequence

import numpy as np

# Two-sided 95 % quantiles of Student's t by degrees of freedom, from 1; beyond the last, the
# normal distribution's (error under 0.1).
T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
Z95 = 1.959964


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean, and Student's 95 % interval of it: ``m -+ t s / sqrt(n)``.

    One value has no interval: it is NaN. A value that is not finite makes all three NaN.
    """
    x = np.asarray(values, np.float64)
    if len(x) < 2 or not np.isfinite(x).all():
        mean = float(x.mean()) if len(x) else math.nan
        return mean, math.nan, math.nan
    quantile = T95[len(x) - 2] if len(x) - 2 < len(T95) else Z95
    half = quantile * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), float(x.mean() - half), float(x.mean() + half)


def share_interval(hits: int, count: int) -> tuple[float, float, float]:
    """Return a share and Wilson's 95 % interval of it (Wilson 1927, eq. 3).

    ::

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    """
    if not count:
        return math.nan, 0.0, 1.0
    p, z2 = hits / count, Z95**2
    center = p + z2 / (2 * count)
    half = Z95 * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    below, above = (center - half) / (1 + z2 / count), (center + half) / (1 + z2 / count)
    return p, max(0.0, below), min(1.0, above)


def ranks(values: Sequence[float]) -> np.ndarray:
    """Return ranks from 1, the mean of theirs for equal values."""
    x = np.asarray(values, np.float64)
    below = (x[None] < x[:, None]).sum(1)
    return below + ((x[None] == x[:, None]).sum(1) + 1) / 2


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation: Pearson's of the ranks. NaN where all of one are equal."""
    x, y = (r - r.mean() for r in (ranks(a), ranks(b)))
    norm = math.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm else math.nan


def spearman_interval(
    a: Sequence[float], b: Sequence[float], draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of `spearman`, over pairs drawn again with replacement."""
    x, y = np.asarray(a), np.asarray(b)
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(x), (draws, len(x)))
    found = [spearman(x[i], y[i]) for i in chosen]
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)
