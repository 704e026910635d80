"""What theory says of an arrangement at initialization: curves to draw over what was measured."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# (level 0..N, N, value at level 0) -> a curve, or the two edges of a band.
Curve = Callable[[np.ndarray, int, float], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Prediction:
    """A row.

    Attributes:
      statistic: that is predicted.
      arrangements: for which.
      equation: for people; p is the power of the stream that enters.
      setup: under which it was derived.
      source: paper.
      curve: one array, or the lower and the upper edge of a band.
    """

    statistic: str
    arrangements: tuple[str, ...]
    equation: str
    setup: str
    source: str
    curve: Curve


def _harmonic(level: np.ndarray) -> np.ndarray:
    """``1 + 1/2 + ... + 1/l``, 0 at l = 0."""
    return np.array([np.sum(1 / np.arange(1, int(n) + 1)) for n in level])


def _band(growth: Callable[[np.ndarray, int], np.ndarray]) -> Curve:
    """From ``p + g / 2`` to ``p + 3 g / 2``: lemma 2's bounds, with its l in the place of g."""

    def curve(level: np.ndarray, depth: int, start: float) -> tuple[np.ndarray, ...]:
        grown = growth(level, depth)
        return start + grown / 2, start + 3 * grown / 2

    return curve


def _one(level: np.ndarray, depth: int, start: float) -> tuple[np.ndarray, ...]:
    return (np.where(level > 0, 1.0, start),)


def _kept(level: np.ndarray, depth: int, start: float) -> tuple[np.ndarray, ...]:
    return (np.full(level.shape, start),)


def _to_one(level: np.ndarray, depth: int, start: float) -> tuple[np.ndarray, ...]:
    """Of weights (i - 1) / i and 1 / i at sublayers i = 2, 3, ..: the mean of p and 2 l ones."""
    return ((start + 2 * level) / (1 + 2 * level),)


def _peri(level: np.ndarray, depth: int, start: float) -> tuple[np.ndarray, ...]:
    return (start + 2 * level,)


def _isometry(rank: np.ndarray, depth: int, start: float) -> tuple[np.ndarray, ...]:
    return (np.ones(rank.shape),)


XIONG = (
    "one head, uniform attention, ReLU, inner width d, variance 1/d, no biases; here p in the place of "
    "its 1"
)
NORMED = "a norm on the stream, scale 1 and bias 0"
INDEPENDENT = "a branch that does not correlate with the stream"

PREDICTIONS = (
    Prediction(
        "stream_power", ("pre_ln", "embedding_norm_pre_ln"), "p + l/2 .. p + 3l/2", XIONG,
        "Xiong et al. 2020 (arXiv 2002.04745), lemma 2", _band(lambda level, depth: level),
    ),
    Prediction(
        "stream_power", ("post_ln", "deepnorm", "admin", "ds_init", "keel"), "1", NORMED,
        "by the norm; Xiong et al. 2020 (arXiv 2002.04745), lemma 2", _one,
    ),
    Prediction(
        "stream_power", ("variance_preserving",), "(p + 2l) / (1 + 2l)", INDEPENDENT,
        "by its weights, whose squares add up to 1", _to_one,
    ),
    Prediction(
        "stream_power", ("layer_norm_scaling",),
        "p + H_l/2 .. p + 3H_l/2, H_l = 1 + .. + 1/l, about log l",
        XIONG + "; each layer's share over l is our reading",
        "Sun et al. 2025 (arXiv 2502.05795)", _band(lambda level, depth: _harmonic(level)),
    ),
    Prediction(
        "stream_power", ("rezero",), "p", "all gates 0",
        "Bachlechner et al. 2020 (arXiv 2003.04887)", _kept,
    ),
    Prediction(
        "jacobian_singular_values", ("rezero",), "1", "all gates 0",
        "Bachlechner et al. 2020 (arXiv 2003.04887)", _isometry,
    ),
    Prediction(
        "stream_power", ("depth_scaled",), "p + 1.96 (l/N) / 2 .. p + 1.96 (l/N) 3/2, bounded in N",
        XIONG + "; branches times 1.4 / sqrt(N)",
        "Noci et al. 2022 (arXiv 2206.03126)", _band(lambda level, depth: 1.4**2 * level / depth),
    ),
    Prediction(
        "stream_power", ("sandwich_ln", "reordered_ln"), "p + 2l",
        INDEPENDENT + ", of power 1 by its norm",
        "Kim et al. 2025 (arXiv 2502.02732)", _peri,
    ),
)  # fmt: skip


def predictions(statistic: str, arrangement: str) -> tuple[Prediction, ...]:
    """Return the rows for a statistic of an arrangement."""
    return tuple(
        row for row in PREDICTIONS if row.statistic == statistic and arrangement in row.arrangements
    )
