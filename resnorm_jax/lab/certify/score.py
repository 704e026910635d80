"""From what was seen at initialization to a rank, a verdict and its reason."""

import math
from dataclasses import dataclass

import numpy as np

from resnorm_jax.lab.certify.probe import SHARES, Probe

AS_IS, WARM_UP, NOT = "trains as is", "needs warm-up", "will not train"
VERDICTS = (AS_IS, WARM_UP, NOT)


@dataclass(frozen=True)
class Thresholds:
    """Where a verdict turns.

    Attributes:
      score: least of what trains.
      chance: most that the loss may be at the best step, in multiples of ``log K``.
    """

    score: float = 0.11
    chance: float = 3.0


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


def judge(name: str, probe: Probe, classes: int, at: Thresholds | None = None) -> Certificate:
    """Return the certificate of an arrangement.

    Args:
      name: of the arrangement.
      probe: what was seen.
      classes: K; chance is ``log K``.
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
    worth = score(probe)
    if not worth >= at.score or not least <= at.chance * math.log(classes):
        verdict = NOT
    elif seen["at_peak"] > 0:
        verdict = WARM_UP
    reason = REASONS[verdict]({**seen, "score": worth}, at, least, classes)
    return Certificate(name=name, score=worth, verdict=verdict, reason=reason, **seen)


def gradient_ratio(probe: Probe) -> float:
    """Return the first layer's gradient norm to the last's; NaN where neither has any."""
    first, last = probe.gradient[:, 0], probe.gradient[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(first) - np.log(last))))


def _why_not(seen, at: Thresholds, least: float, classes: int) -> str:
    if not least <= at.chance * math.log(classes):
        return f"the loss starts at {seen['loss']:.3g} and no step brings it near log K"
    hint = ""
    if not 1e-3 <= seen["gradient_ratio"] <= 1e3:
        hint = f"; the first layer's gradient is {seen['gradient_ratio']:.0e} of the last's"
    elif seen["alike"] > 0.95:
        hint = f"; all rows look alike after the last layer (cosine {seen['alike']:.3f})"
    return (
        f"one step tells the classes apart with r = {seen['score']:.2f}, under {at.score:.2f}{hint}"
    )


def _why_warm(seen, at: Thresholds, least: float, classes: int) -> str:
    return (
        f"a first step at the full rate raises the loss by {100 * seen['at_peak']:.0f} %; "
        f"{seen['share']:.2g} of it lowers it by {100 * seen['fall']:.0f} %"
    )


def _why_as_is(seen, at: Thresholds, least: float, classes: int) -> str:
    return (
        f"one step tells the classes apart with r = {seen['score']:.2f}; at the full rate it lowers "
        f"the loss by {-100 * seen['at_peak']:.0f} %"
    )


REASONS = {NOT: _why_not, WARM_UP: _why_warm, AS_IS: _why_as_is}
