"""C1: gradients by layer against depth in the flow chart's four networks, and training there."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.article import SWITCHES, ReluLayer, SwitchNetwork
from resnorm_jax.lab.article import statistics
from resnorm_jax.lab.article.networks import (
    STARTS,
    SwitchClassifier,
    TracedSwitch,
    all_switches,
    init_of,
    loss_of,
    scores_of,
)
from resnorm_jax.lab.article.settings import Settings
from resnorm_jax.lab.article.training import best_rate, train_grid
from resnorm_jax.lab.problems import problem
from resnorm_jax.lab.statistics import share_interval

ROWS = 32
LABELS = tuple(switch.label for switch in SWITCHES)


def gradient_norms(depth: int, width: int, start: str, seeds: int) -> np.ndarray:
    """Norm of the gradient of each block's input, ``[4, seeds, depth]``, by `SWITCHES`.

    The loss is a random linear function of the output, so that nothing but the body is measured.
    """
    branch = partial(ReluLayer, width, STARTS[start](width))

    def one(switch: TracedSwitch, key: jax.Array) -> jax.Array:
        kx, kp, kv = jax.random.split(key, 3)
        x, v = (jax.random.normal(k, (ROWS, width)) for k in (kx, kv))
        net = SwitchNetwork(depth, switch, branch)
        params = net.init(kp, x)
        loss = lambda probe: jnp.sum(net.apply(params, x, probe, method="trace")[0] * v)  # noqa: E731
        return norms_of(jax.grad(loss)(jnp.zeros((depth, ROWS, width))))

    keys = jax.random.split(jax.random.key(0), seeds)
    grid = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return np.asarray(jax.jit(grid)(all_switches(), keys))


def norms_of(gradient: jax.Array) -> jax.Array:
    """Euclidean norms ``[N]`` of ``[N, B, D]``, of numbers whose squares float32 does not hold."""
    largest = jnp.abs(gradient).max((1, 2), keepdims=True)
    unit = gradient / jnp.where(largest > 0, largest, 1)
    return largest[:, 0, 0] * jnp.sqrt(jnp.sum(unit**2, (1, 2)))


def gradients(settings: Settings) -> list[dict[str, Any]]:
    """A row for each start, depth and network: the median curve and the factor per layer."""
    rows = []
    for start in STARTS:
        for depth in settings.depths:
            found = gradient_norms(depth, settings.width, start, settings.gradient_seeds)
            for label, norms in zip(LABELS, found, strict=True):
                rows.append(
                    {
                        "start": start, "network": label, "depth": depth,
                        "median": np.median(norms, axis=0).tolist(),
                        "decades": float(np.median(statistics.decades(norms))),
                        "factor": float(np.median(statistics.factor_per_layer(norms))),
                    }
                )  # fmt: skip
    return rows


def trainings(settings: Settings) -> list[dict[str, Any]]:
    """A row for each depth and network: scores ``[S, R]`` by seed and learning rate, on digits."""
    data = problem("rows")
    rows, test, chance = data.train.flat(), data.test.flat(), float(np.log(data.classes))
    found, branch = [], partial(ReluLayer, settings.width)
    for depth in settings.train_depths:
        model = partial(model_of, data.classes, settings.width, depth, branch)
        run = train_grid(
            init_of(model, rows), loss_of(model, rows, ROWS), settings.grid_seeds, settings.rates,
            settings.grid_steps, variants=all_switches(), observe=scores_of(model, rows, test),
        )  # fmt: skip
        losses, accuracies = (np.asarray(each) for each in run.seen)
        for label, loss, accuracy in zip(LABELS, losses, accuracies, strict=True):
            lost, loss, accuracy = statistics.diverged(loss), loss[..., -1], accuracy[..., -1]
            rate = best_rate(loss)
            found.append(
                {
                    "network": label, "depth": depth, "chance": chance,
                    "loss": loss.tolist(), "accuracy": accuracy.tolist(),
                    "lost": lost.tolist(),
                    "rate": settings.rates[rate], "best": float(accuracy[:, rate].mean()),
                }
            )  # fmt: skip
    return found


def no_better(rows: list[dict[str, Any]]) -> float:
    """Share of runs that end no better than guessing, which is not the same as unstable."""
    return float(np.mean([~(np.array(row["loss"]) < row["chance"]) for row in rows]))


def model_of(classes: int, width: int, depth: int, branch: Any, switch: Any) -> SwitchClassifier:
    """The classifier around one of the four networks."""
    return SwitchClassifier(classes, width, depth, switch, branch)


def depth_claims(settings: Settings) -> dict[str, Any]:
    """Measure C1, and C4 from the same trainings."""
    profiles, trained = gradients(settings), trainings(settings)
    numbers: dict[str, Any] = {"majority": problem("rows").majority}
    for label in LABELS:
        name = label.replace(" ", "_")
        deepest = max(settings.depths)
        factors = [r["factor"] for r in profiles if (r["network"], r["depth"]) == (label, deepest)]
        logs = [abs(np.log(max(factor, statistics.FLOOR))) for factor in factors]
        numbers[f"{name}_factor"] = factors[int(np.argmax(logs))]
        numbers[f"{name}_off"] = float(np.exp(max(logs)))
        rows = [row for row in trained if row["network"] == label]
        numbers[f"{name}_accuracy"] = max(rows, key=lambda row: row["depth"])["best"]
        lost = np.array([row["lost"] for row in rows])
        _, low, high = share_interval(int(lost.sum()), lost.size)
        numbers |= {
            f"{name}_lost": float(lost.mean()), f"{name}_lost_low": low,
            f"{name}_lost_high": high, "runs_of_each": lost.size,
            f"{name}_no_better_than_guessing": no_better(rows),
        }  # fmt: skip
    numbers["gain_in_accuracy"] = numbers["skip_and_norm_accuracy"] - numbers["neither_accuracy"]
    others = [n.replace(" ", "_") for n in LABELS[:-1]]
    least = min(numbers[f"{name}_lost_low"] for name in others)
    numbers["least_of_the_others_low"] = least
    numbers["both_below_others"] = least - numbers["skip_and_norm_lost_high"]
    numbers["both_below_neither"] = numbers["neither_lost_low"] - numbers["skip_and_norm_lost_high"]
    return {"profiles": profiles, "trained": trained, "numbers": numbers}
