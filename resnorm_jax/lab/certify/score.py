"""From what was seen in the first steps to a rank, a verdict and its reason."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnorm_jax.lab.certify.probe import RATES, STEPS, Probe

AS_IS, WARM_UP, NOT = "trains as is", "needs warm-up", "will not train"
VERDICTS = (AS_IS, WARM_UP, NOT)
FULL = RATES.index(1.0)


@dataclass(frozen=True)
class Thresholds:
    """Where a verdict turns.

    Attributes:
      deviations: agreement at the best rate and step, in deviations of what chance gives (see
        `chance_score`), under which a network is blind. Where it was chosen, what failed had up to 3.1,
        but for networks that start slowly, and what trained 4.5 and more, but for one of 2.6.
      rise: of the loss at the full rate, relative to the loss before, over which a warm-up is needed.
    """

    deviations: float = 3.5
    rise: float = 0.0


@dataclass(frozen=True)
class Certificate:
    """What is to be expected of an arrangement.

    Attributes:
      name: of the arrangement.
      score: of `score`: the higher, the faster it is expected to train; at most 1, about 0 for what
        stays at chance.
      verdict: one of `VERDICTS`.
      reason: one line.
      loss: before, mean over draws, in nats.
      fall: relative fall of the loss after all steps at the full peak rate, mean over draws.
      agreement: of logits and labels at the best rate and step, mean over draws.
      gradient_ratio: norm of the first layer's gradient to the last's, geometric mean over draws.
      alike: mean cosine between the outputs of different rows.
    """

    name: str
    score: float
    verdict: str
    reason: str
    loss: float
    fall: float
    agreement: float
    gradient_ratio: float
    alike: float


def relative_fall(probe: Probe) -> np.ndarray:
    """Return ``(l_0 - l_t) / l_0`` after each step, ``[S, R, T]``; at least -1, also where l is NaN."""
    start = probe.loss[..., :1]
    with np.errstate(invalid="ignore"):
        fall = (start - probe.loss[..., 1:]) / start
    return np.where(np.isfinite(fall), np.maximum(fall, -1.0), -1.0)


def agreements(probe: Probe) -> np.ndarray:
    """Return the agreement after each step, mean over draws, ``[R, T]``; 0 for logits that are NaN."""
    return np.nan_to_num(probe.agreement[..., 1:], nan=0.0).mean(0)


def score(probe: Probe, classes: int) -> float:
    """Return how far below chance the loss can be brought at once.

    ::

        mean over draws of  1 - min over rates and steps t = 1 .. T of l_t / log K

    NaN counts as a loss without end.
    """
    after = np.nan_to_num(probe.loss[..., 1:], nan=math.inf)
    least = after.min(axis=(1, 2))
    return float(np.mean(1 - least / math.log(classes)))


def chance_score(rows: int, classes: int) -> float:
    """Return the standard deviation of the correlation of labels with logits that know nothing.

    ``1 / sqrt((B - 1) (K - 1))``, over orders of the labels, where logits vary alike in all classes.
    """
    return 1 / math.sqrt((rows - 1) * (classes - 1))


def judge(
    name: str, probe: Probe, rows: int, classes: int, at: Thresholds | None = None
) -> Certificate:
    """Return the certificate of an arrangement.

    *Will not train*: no rate and no step tells the classes apart better than chance.
    *Needs warm-up*: it learns, but after all steps at the full rate the loss is higher than before.

    Args:
      name: of the arrangement.
      probe: what was seen.
      rows: B, how many rows it was seen on.
      classes: K.
      at: where verdicts turn.
    """
    at = at or Thresholds()
    falls = relative_fall(probe).mean(0)
    seen = {
        "loss": float(probe.loss[:, 0, 0].mean()),
        "fall": float(falls[FULL, -1]),
        "agreement": float(agreements(probe).max()),
        "gradient_ratio": gradient_ratio(probe),
        "alike": float(probe.alike.mean()),
    }
    needed = at.deviations * chance_score(rows, classes)
    verdict = AS_IS
    if not seen["agreement"] >= needed:
        verdict = NOT
    elif -seen["fall"] > at.rise:
        verdict = WARM_UP
    reason = REASONS[verdict]({**seen, "needed": needed, "chance": math.log(classes)})
    return Certificate(
        name=name, score=score(probe, classes), verdict=verdict, reason=reason, **seen
    )


def gradient_ratio(probe: Probe) -> float:
    """Return the first layer's gradient norm to the last's; NaN where neither has any."""
    first, last = probe.gradient[:, 0], probe.gradient[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(first) - np.log(last))))


def _uneven(ratio: float) -> bool:
    """Whether the gradient shrinks or grows a thousandfold; NaN, all branches closed, does not."""
    return abs(math.log10(ratio or 1e-99)) > 3


# What may lie behind it, the first that is true: of the gradient, of the loss, of the outputs.
CAUSES: tuple[tuple[Callable[[Mapping[str, Any]], bool], str], ...] = (
    (
        lambda seen: _uneven(seen["gradient_ratio"]),
        "the first layer's gradient is {gradient_ratio:.0e} of the last's",
    ),
    (lambda seen: seen["loss"] > 3 * seen["chance"], "the loss starts at {loss:.3g}"),
    (lambda seen: seen["alike"] > 0.95, "all rows look alike in the end (cosine {alike:.3f})"),
)


def _why_not(seen: Mapping[str, Any]) -> str:
    what = (
        f"{STEPS} steps do not tell the classes apart: r = {seen['agreement']:.2f} at best, chance has "
        f"up to {seen['needed']:.2f}"
    )
    causes = [words.format(**seen) for holds, words in CAUSES if holds(seen)]
    return "; ".join([what, *causes[:1]])


def _why_warm(seen: Mapping[str, Any]) -> str:
    return (
        f"{STEPS} steps tell the classes apart (r = {seen['agreement']:.2f}), but at the full rate "
        f"they raise the loss by {-100 * seen['fall']:.0f} %"
    )


def _why_as_is(seen: Mapping[str, Any]) -> str:
    return (
        f"{STEPS} steps tell the classes apart (r = {seen['agreement']:.2f}); at the full rate they "
        f"lower the loss by {100 * seen['fall']:.0f} %"
    )


REASONS = {NOT: _why_not, WARM_UP: _why_warm, AS_IS: _why_as_is}
