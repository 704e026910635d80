"""C2 and C3: what a norm does to speed, and to the inputs of layers meanwhile."""

from functools import partial
from typing import Any

import jax
import numpy as np

from resnorm_jax.article import SWITCHES, ReluLayer
from resnorm_jax.lab.article import statistics
from resnorm_jax.lab.article.networks import (
    Model,
    SwitchClassifier,
    all_switches,
    init_of,
    loss_of,
)
from resnorm_jax.lab.article.settings import Settings
from resnorm_jax.lab.article.training import best_rate, train_grid
from resnorm_jax.lab.problems import Rows, problem
from resnorm_jax.lab.trainer import cross_entropy
from resnorm_jax.norms.layer import LayerNorm
from resnorm_jax.ops.norms import detach_norm

TARGET = 0.5
"""Nats of training loss: well under guessing's 2.3, well over the least."""
ROWS, LOOKED_AT = 32, 256
LABELS = tuple(switch.label for switch in SWITCHES)


def detached(name: str):
    """Layer norm's values without the gradients of mean and deviation (Xu et al. 2019)."""
    return partial(detach_norm, epsilon=1e-5)


def observe_of(model: Model, rows: Rows):
    """Return the function from parameters to the loss on fixed rows and their layers' statistics."""
    some = rows.take(slice(0, LOOKED_AT))

    def look(params: Any, variant: Any) -> tuple[jax.Array, ...]:
        made: Any = model(variant)
        h = made.apply(params, some.x, method="reads")
        return cross_entropy(made.apply(params, some.x), some.y), h.mean(1), h.var(1)

    return look


def run(settings: Settings, normalize: Any, variants: Any) -> tuple[np.ndarray, ...]:
    """Train at every rate, from seeds to tune on and as many to measure; return what was seen."""
    data = problem("rows")
    rows, branch = data.train.flat(), partial(ReluLayer, settings.width)
    model = lambda switch: SwitchClassifier(  # noqa: E731
        data.classes, settings.width, settings.speed_depth, switch, branch, normalize
    )
    found = train_grid(
        init_of(model, rows), loss_of(model, rows, ROWS), 2 * settings.speed_seeds,
        settings.rates, settings.speed_steps, variants=variants,
        observe=observe_of(model, rows), every=settings.speed_every,
    )  # fmt: skip
    return jax.tree.map(np.asarray, found.seen)


def tuned(
    settings: Settings, name: str, loss: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> dict[str, Any]:
    """Choose the rate on half of the seeds; on the others: steps to the target, and drift."""
    half, every = settings.speed_seeds, settings.speed_every
    needed = statistics.steps_to(loss[:half], TARGET, every)
    # Fewest steps to the target; where none gets there, or as many, the least loss.
    steps = np.where(np.isfinite(needed), needed, 1e9) + np.nan_to_num(loss[:half, :, -1], nan=1e6)
    rate = best_rate(steps)
    loss, mean, variance = (each[half:, rate] for each in (loss, mean, variance))
    moved, grown = statistics.drift(mean, variance)
    return {
        "network": name, "rate": settings.rates[rate], "every": every, "loss": loss.tolist(),
        "steps": statistics.steps_to(loss, TARGET, every).tolist(),
        "drift_mean": moved.tolist(), "drift_variance": grown.tolist(),
    }  # fmt: skip


def all_networks(settings: Settings) -> dict[str, dict[str, Any]]:
    """The flow chart's four, and skip and norm with the norm's statistics detached."""
    four = run(settings, LayerNorm, all_switches())
    both = jax.tree.map(lambda a: a[-1:], all_switches())
    seen = {label: [each[n] for each in four] for n, label in enumerate(LABELS)}
    seen["skip and detached norm"] = [each[0] for each in run(settings, detached, both)]
    return {name: tuned(settings, name, *each) for name, each in seen.items()}


def speed_claims(settings: Settings) -> dict[str, Any]:
    """Measure C2 and C3, which share their trainings."""
    rows = all_networks(settings)
    pairs = {
        "with_skip": ("skip only", "skip and norm"),
        "without_skip": ("neither", "norm only"),
        "detached_to_norm": ("skip and detached norm", "skip and norm"),
    }
    numbers: dict[str, Any] = {"target_loss": TARGET, "networks": len(rows)}
    for name, (over, under) in pairs.items():
        ratio = statistics.median_ratio(rows[over]["steps"], rows[under]["steps"])
        for part, value in zip(("", "_low", "_high"), ratio, strict=True):
            numbers[f"steps_{name}{part}"] = value
        for which in ("mean", "variance"):
            key = f"drift_{which}"
            ratio = statistics.median_ratio(rows[under][key], rows[over][key])
            for part, value in zip(("", "_low", "_high"), ratio, strict=True):
                numbers[f"{key}_{name}{part}"] = value
    return {"rows": list(rows.values()), "numbers": numbers}
