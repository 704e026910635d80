"""Wall time of several functions that do the same work, measured side by side."""

import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Budget:
    """How long to measure one case.

    Attributes:
      seconds: stop after this time, warm-up not counted.
      at_least: rounds to do even when that takes longer.
      at_most: rounds to do even when time is left.
      warmup: calls of each function that are not counted, before the first round.
      primers: calls before each measured one that are not counted: they meet the caches and the
        still spinning threads that another library left behind.
      calls: calls that one measurement takes the mean of.
      queue: whether those are handed to the device at once and waited for together, as in training;
        without it each is waited for.
    """

    seconds: float
    at_least: int = 5
    at_most: int = 400
    warmup: int = 3
    primers: int = 0
    calls: int = 1
    queue: bool = False


def interleave(functions: Mapping[str, Callable[[], object]], budget: Budget) -> Samples:
    """Call every function once a round; return the seconds of each call, by name.

    What slows the machine down for a while then slows all of them. The order is drawn anew each
    round, so that nobody always comes after the same one.

    Args:
      functions: each begins its work and returns arrays, which `finish` waits for.
      budget: how long to go on.
    """
    for function in functions.values():
        for _ in range(budget.warmup):
            finish(function())
    order, shuffle = list(functions), random.Random(0).shuffle
    samples: Samples = {name: [] for name in functions}
    start, rounds = time.perf_counter(), 0
    while rounds < budget.at_least or (
        rounds < budget.at_most and time.perf_counter() - start < budget.seconds
    ):
        shuffle(order)
        for name in order:
            for _ in range(budget.primers):
                finish(functions[name]())
            samples[name].append(_seconds(functions[name], budget))
        rounds += 1
    return samples


def _seconds(function: Callable[[], object], budget: Budget) -> float:
    """Return the mean seconds of some calls."""
    begin = time.perf_counter()
    for _ in range(budget.calls):
        out = function()
        if not budget.queue:
            finish(out)
    finish(out)
    return (time.perf_counter() - begin) / budget.calls


def finish(out: object) -> None:
    """Return when the device has done all that led to these arrays, of jax or of torch."""
    jax.block_until_ready(out)
    torch = sys.modules.get("torch")
    if torch is not None and jax.default_backend() == "gpu" and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def summary(samples: Samples) -> dict[str, dict[str, float]]:
    """Return median, minimum and quartiles of each function's seconds."""
    return {name: _spread(values) | {"minimum": min(values)} for name, values in samples.items()}


def ratios(samples: Samples, ours: list[str]) -> list[dict[str, Any]]:
    """Compare each function of ours with every other.

    Returns:
      A row for each pair: ``median`` and ``minimum`` are the ratios of the medians and of the
      minima; ``q25`` and ``q75`` are quartiles of the ratios within a round. Under 1 ours is faster.
    """
    times = summary(samples)
    return [
        {
            **_spread([a / b for a, b in zip(samples[own], samples[peer], strict=True)]),
            "ours": own,
            "peer": peer,
            "median": times[own]["median"] / times[peer]["median"],
            "minimum": times[own]["minimum"] / times[peer]["minimum"],
        }
        for own in ours
        for peer in samples
        if peer not in ours
    ]


def comparison(samples: Samples, ours: list[str]) -> dict[str, Any]:
    """Return what the results file holds of one case: times, ratios and rounds."""
    return {
        "times": summary(samples),
        "ratios": ratios(samples, ours),
        "rounds": len(next(iter(samples.values()))),
    }


def _spread(values: list[float]) -> dict[str, float]:
    q25, median, q75 = (float(q) for q in np.percentile(values, (25, 50, 75)))
    return {"median": median, "q25": q25, "q75": q75}
