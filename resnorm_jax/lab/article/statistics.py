"""Statistics of the article's claims, as pure functions of NumPy arrays."""

from collections.abc import Sequence

import numpy as np

FLOOR = 1e-38
"""Norms under this count as this: near the least that float32 holds."""


def band(curves: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Quantiles over seeds: ``[S, T]`` to ``[levels, T]``."""
    return np.quantile(np.asarray(curves, np.float64), levels, axis=0)


def share_inside(curve: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Share of the points of ``curve [T]`` within ``[low, high]``, ends included."""
    curve = np.asarray(curve, np.float64)
    return float(np.mean((curve >= low) & (curve <= high)))


def steps_to(losses: np.ndarray, target: float, every: int = 1) -> np.ndarray:
    """First step at which a loss ``[..., T]`` is at most ``target``; infinite where it never is.

    Values stand ``every`` steps apart; the first is before any update, at step 0.
    """
    reached = np.asarray(losses) <= target  # NaN never is
    return np.where(reached.any(-1), reached.argmax(-1) * float(every), np.inf)


def median_ratio(
    over: np.ndarray, under: np.ndarray, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of two medians, and its 95 % interval by bootstrap over the runs of each.

    Infinite runs (never reached) count as such: a median of them is infinite. Where both medians are
    infinite the ratio is not known, and NaN.
    """
    rng = np.random.default_rng(seed)

    def drawn(values: np.ndarray) -> np.ndarray:
        return np.median(rng.choice(values, (draws, len(values))), axis=1)

    over, under = np.asarray(over, np.float64), np.asarray(under, np.float64)
    with np.errstate(invalid="ignore"):
        ratios = drawn(over) / drawn(under)
        ratio = np.median(over) / np.median(under)
    if np.isnan(ratio):
        return float("nan"), float("nan"), float("nan")
    # Nearest: interpolating between infinities gives NaN.
    low, high = np.quantile(ratios[~np.isnan(ratios)], [0.025, 0.975], method="nearest")
    return float(ratio), float(low), float(high)


def decades(norms: np.ndarray) -> np.ndarray:
    """``log10`` of the first layer's norm over the last's: ``[..., N]`` to ``[...]``; 0 is even."""
    logs = np.log10(np.maximum(np.nan_to_num(np.asarray(norms, np.float64), posinf=1e38), FLOOR))
    return logs[..., 0] - logs[..., -1]


def factor_per_layer(norms: np.ndarray) -> np.ndarray:
    """``10 ** (decades / layers)``: by what a norm changes from one layer to the one before."""
    return 10.0 ** (decades(norms) / max(1, np.shape(norms)[-1] - 1))


def diverged(losses: np.ndarray) -> np.ndarray:
    """Whether a loss ``[..., T]`` ends where it is not finite, or no lower than it began."""
    losses = np.asarray(losses)
    return ~np.isfinite(losses[..., -1]) | ~(losses[..., -1] < losses[..., 0])


def drift(means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the inputs of layers move between two looks, averaged over looks, layers, features.

    Args:
      means: ``[..., T, N, D]``: over a fixed batch, of each feature of each layer's input, T looks.
      variances: likewise.

    Returns:
      Of the mean, ``|m(t+1) - m(t)|`` in units of the root mean square deviation of the layer's
      features at t; and of the variance, ``|ln v(t+1) - ln v(t)|`` of the layer's mean variance.
    """
    means, variances = np.asarray(means, np.float64), np.asarray(variances, np.float64)
    layer = np.maximum(variances.mean(-1), FLOOR)
    moved = np.abs(np.diff(means, axis=-3)) / np.sqrt(layer[..., :-1, :, None])
    grown = np.abs(np.diff(np.log(layer), axis=-2))
    return moved.mean((-3, -2, -1)), grown.mean((-2, -1))


def prune(weights: np.ndarray, keep: float) -> np.ndarray:
    """Zero the smallest weights by magnitude, so that about a share ``keep`` of them stays.

    Source: Han et al. 2015 (arXiv 1506.02626), section 3.
    """
    if keep >= 1:
        return weights
    return np.where(np.abs(weights) >= np.quantile(np.abs(weights), 1 - keep), weights, 0)


def quantize(weights: np.ndarray, bits: int = 8) -> np.ndarray:
    """Round to ``2**bits - 1`` levels, symmetric about 0, one scale a tensor.

    Source: Jacob et al. 2017 (arXiv 1712.05877), eq. 1, zero point 0.
    """
    most = 2 ** (bits - 1) - 1
    largest = np.abs(weights).max(initial=0)
    if largest == 0:
        return weights
    return (np.round(weights / largest * most) / most * largest).astype(weights.dtype)
