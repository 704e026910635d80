"""C2 and C3: what a norm does to speed, and to the inputs of layers meanwhile."""

from functools import partial
from typing import Any

import jax
import numpy as np

from resnorm_jax.article import SWITCHES, ReluLayer, Switch
from resnorm_jax.lab.article import statistics
from resnorm_jax.lab.article.networks import SwitchClassifier, flat, init_of, loss_of
from resnorm_jax.lab.article.problems import Rows, problem
from resnorm_jax.lab.article.settings import Settings
from resnorm_jax.lab.article.training import best_rate, cross_entropy, train_grid
from resnorm_jax.modules.norms import LayerNorm
from resnorm_jax.ops.norms import detach_norm

TARGET = 0.5
"""Nats of training loss: well under guessing's 2.3, well over the least."""
ROWS, LOOKED_AT = 32, 256
BY_SWITCH = {switch.label: switch for switch in SWITCHES}


def detached(name: str):
    """Layer norm's values without the gradients of mean and deviation (Xu et al. 2019)."""
    return partial(detach_norm, epsilon=1e-5)


NETWORKS: dict[str, tuple[Switch, Any]] = {
    **{label: (switch, LayerNorm) for label, switch in BY_SWITCH.items()},
    "skip and detached norm": (BY_SWITCH["skip and norm"], detached),
}


def observe(model: SwitchClassifier, rows: Rows):
    """Return the function from parameters to the loss on fixed rows and their layers' statistics."""
    some = rows.take(slice(0, LOOKED_AT))

    def look(params: Any) -> tuple[jax.Array, ...]:
        h = model.apply(params, some.x, method="reads")
        return cross_entropy(model.apply(params, some.x), some.y), h.mean(1), h.var(1)

    return look


def run(settings: Settings, name: str, rates: tuple[float, ...], first: int, every: int, steps: int):
    """Train one of `NETWORKS` from ``speed_seeds`` seeds, ``first`` on; return what was seen."""
    data, (switch, normalize) = problem("rows"), NETWORKS[name]
    rows, branch = flat(data.train), partial(ReluLayer, settings.width)
    model = SwitchClassifier(
        data.classes, settings.width, settings.speed_depth, switch, branch, normalize
    )
    found = train_grid(
        init_of(model, rows), loss_of(model, rows, ROWS), settings.speed_seeds, rates, steps,
        observe=observe(model, rows), every=every, first_seed=first,
    )  # fmt: skip
    return jax.tree.map(np.asarray, found.seen)


def tuned(settings: Settings, name: str) -> dict[str, Any]:
    """Choose the rate on some seeds, measure on others: steps to the target, and drift."""
    every = max(1, settings.speed_steps // (100 if settings.speed_steps >= 100 else 4))
    losses = run(settings, name, settings.rates, 1000, every, settings.speed_steps)[0]
    # Fewest steps to the target; where none gets there, or as many, the least loss.
    steps = np.where(
        np.isfinite(needed := statistics.steps_to(losses, TARGET, every)), needed, 1e9
    ) + np.nan_to_num(losses[..., -1], nan=1e6, posinf=1e6)
    rate = settings.rates[best_rate(steps, settings.rates)]
    loss, mean, variance = (
        each[:, 0] for each in run(settings, name, (rate,), 0, every, settings.speed_steps)
    )
    apart = max(1, (loss.shape[1] - 1) // settings.looks)
    moved, grown = statistics.drift(mean[:, ::apart], variance[:, ::apart])
    return {
        "network": name, "rate": rate, "every": every, "loss": loss.tolist(),
        "steps": statistics.steps_to(loss, TARGET, every).tolist(),
        "drift_mean": moved.tolist(), "drift_variance": grown.tolist(),
    }  # fmt: skip


def speed_claims(settings: Settings) -> dict[str, Any]:
    """Measure C2 and C3, which share their trainings."""
    rows = {name: tuned(settings, name) for name in NETWORKS}
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
