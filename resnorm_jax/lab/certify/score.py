"""From what was seen at initialization to a rank, a verdict and its reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnorm_jax.lab.certify.probe import SHARES, Probe

AS_IS, WARM_UP, NOT = "trains as is", "needs warm-up", "will not train"
VERDICTS = (AS_IS, WARM_UP, NOT)


@dataclass(frozen=True)
class Thresholds:
    """Where a verdict turns.

    Attributes:
      deviations: score, in deviations of what chance gives (see `chance_score`), under which a network
        is blind, if all rows also look alike to it and the full rate makes it worse.
      alike: cosine between the outputs of different rows, over which they look alike.
      gradient: largest ratio, either way, of the first layer's gradient to the last's.
      loss: most that the loss may be at the best step, in multiples of ``log K``.

    Wide on purpose: *will not train* is to be right, not to be complete.
    """

    deviations: float = 2.3
    alike: float = 0.95
    gradient: float = 1e3
    loss: float = 3.0


@dataclass(frozen=True)
class Certificate:
    """What is to be expected of an arrangement.

    Attributes:
      name: of the arrangement.
      score: of `score`: the higher, the faster it is expected to train; ``-1`` to ``1``.
      verdict: one of `VERDICTS`.
      reason: one line.
      loss: before, mean over draws, in nats.
      fall: the largest relative fall of the loss over shares of the rate, mean over draws.
      share: where it is.
      at_peak: relative change of the loss after one step at the full peak rate.
      gradient_ratio: norm of the first layer's gradient to the last's, geometric mean over draws.
      alike: mean cosine between the outputs of different rows.
    """

    name: str
    score: float
    verdict: str
    reason: str
    loss: float
    fall: float
    share: float
    at_peak: float
    gradient_ratio: float
    alike: float


def relative_fall(probe: Probe) -> np.ndarray:
    """Return ``(l(0) - l(a)) / l(0)`` at each share, ``[S, A]``; at least -1, also where l is NaN."""
    start = probe.loss[:, None]
    fall = (start - probe.along) / start
    return np.where(np.isfinite(fall), np.maximum(fall, -1.0), -1.0)


def score(probe: Probe) -> float:
    """Return how well one step can make the logits agree with the labels, at its best length.

    ::

        mean over draws of  max_a r(a),   a = 2^-10 ... 2^5 of the peak learning rate

    with r of `resnorm_jax.lab.certify.probe.agreement`.
    """
    return float(np.nan_to_num(probe.agreement, nan=-1.0).max(axis=1).mean())


def chance_score(rows: int, classes: int) -> float:
    """Return the standard deviation of the correlation of labels with logits that know nothing.

    ``1 / sqrt((B - 1) (K - 1))``, over orders of the labels, where logits vary alike in all classes.
    """
    return 1 / math.sqrt((rows - 1) * (classes - 1))


def judge(
    name: str, probe: Probe, rows: int, classes: int, at: Thresholds | None = None
) -> Certificate:
    """Return the certificate of an arrangement.

    Args:
      name: of the arrangement.
      probe: what was seen.
      rows: B, how many rows it was seen on.
      classes: K; the loss of chance is ``log K``.
      at: where verdicts turn.
    """
    at = at or Thresholds()
    falls = relative_fall(probe).mean(0)
    best = int(falls.argmax())
    least = float(np.nanmin(np.where(np.isfinite(probe.along), probe.along, np.inf), axis=1).mean())
    seen = {
        "loss": float(probe.loss.mean()),
        "fall": float(falls[best]),
        "share": SHARES[best],
        "at_peak": float(-falls[SHARES.index(1.0)]),
        "gradient_ratio": gradient_ratio(probe),
        "alike": float(probe.alike.mean()),
    }
    verdict = AS_IS
    worth, needed = score(probe), at.deviations * chance_score(rows, classes)
    far = not least <= at.loss * math.log(classes)
    lost = not 1 / at.gradient <= seen["gradient_ratio"] <= at.gradient
    # No gradient at all is no loss of it: all branches may be closed at first.
    lost = lost and not math.isnan(seen["gradient_ratio"])
    blind = not worth >= needed and seen["alike"] > at.alike and seen["at_peak"] > 0
    if blind or far or lost:
        verdict = NOT
    elif seen["at_peak"] > 0:
        verdict = WARM_UP
    told = {**seen, "score": worth, "needed": needed, "far": far, "lost": lost}
    reason = REASONS[verdict](told)
    return Certificate(name=name, score=worth, verdict=verdict, reason=reason, **seen)


def gradient_ratio(probe: Probe) -> float:
    """Return the first layer's gradient norm to the last's; NaN where neither has any."""
    first, last = probe.gradient[:, 0], probe.gradient[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(first) - np.log(last))))


def _why_not(seen: Mapping[str, Any]) -> str:
    if seen["far"]:
        return f"the loss starts at {seen['loss']:.3g} and no step brings it near chance"
    if seen["lost"]:
        return f"the first layer's gradient is {seen['gradient_ratio']:.0e} of the last's"
    return (
        f"no step tells the classes apart: r = {seen['score']:.2f} at best, chance has up to "
        f"{seen['needed']:.2f}; all rows look alike in the end (cosine {seen['alike']:.3f})"
    )


def _why_warm(seen: Mapping[str, Any]) -> str:
    return (
        f"a first step at the full rate raises the loss by {100 * seen['at_peak']:.0f} %; "
        f"{seen['share']:.2g} of it lowers it by {100 * seen['fall']:.0f} %"
    )


def _why_as_is(seen: Mapping[str, Any]) -> str:
    return (
        f"one step tells the classes apart with r = {seen['score']:.2f}; at the full rate it lowers "
        f"the loss by {-100 * seen['at_peak']:.0f} %"
    )


REASONS = {NOT: _why_not, WARM_UP: _why_warm, AS_IS: _why_as_is}
