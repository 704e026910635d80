"""C1: gradients by layer against depth in the flow chart's four networks, and training there."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.article import SWITCHES, ReluLayer, Switch, SwitchNetwork
from resnorm_jax.lab.article import statistics
from resnorm_jax.lab.article.networks import (
    STARTS,
    SwitchClassifier,
    flat,
    init_of,
    loss_of,
)
from resnorm_jax.lab.article.problems import problem
from resnorm_jax.lab.article.settings import Settings
from resnorm_jax.lab.article.training import train_grid

ROWS = 32


def gradient_norms(depth: int, width: int, switch: Switch, start: str, seeds: int) -> np.ndarray:
    """Norm of the gradient of each block's input, ``[seeds, depth]``.

    The loss is a random linear function of the output, so that nothing but the body is measured.
    """
    branch = partial(ReluLayer, width, STARTS[start](width))
    net = SwitchNetwork(depth, switch, branch)

    def one(key: jax.Array) -> jax.Array:
        kx, kp, kv = jax.random.split(key, 3)
        x, v = (jax.random.normal(k, (ROWS, width)) for k in (kx, kv))
        params = net.init(kp, x)
        loss = lambda probe: jnp.sum(net.apply(params, x, probe, method="trace")[0] * v)  # noqa: E731
        gradient = jax.grad(loss)(jnp.zeros((depth, ROWS, width)))
        # In units of the largest element: squares of 1e-20 would be zero in float32.
        largest = jnp.abs(gradient).max((1, 2), keepdims=True)
        unit = gradient / jnp.where(largest > 0, largest, 1)
        return largest[:, 0, 0] * jnp.sqrt(jnp.sum(unit**2, (1, 2)))

    keys = jax.random.split(jax.random.key(0), seeds)
    return np.asarray(jax.jit(jax.vmap(one))(keys))


def gradients(settings: Settings) -> list[dict[str, Any]]:
    """A row for each start, network and depth: the median curve and the factor per layer."""
    rows = []
    for start in STARTS:
        for switch in SWITCHES:
            for depth in settings.depths:
                norms = gradient_norms(
                    depth, settings.width, switch, start, settings.gradient_seeds
                )
                rows.append(
                    {
                        "start": start, "network": switch.label, "depth": depth,
                        "median": np.median(norms, axis=0).tolist(),
                        "decades": float(np.median(statistics.decades(norms))),
                        "factor": float(np.median(statistics.factor_per_layer(norms))),
                    }
                )  # fmt: skip
    return rows


def trainings(settings: Settings, depths: tuple[int, ...]) -> list[dict[str, Any]]:
    """A row for each network and depth: losses of every seed and learning rate, on digits."""
    data = problem("rows")
    rows, test = flat(data.train), flat(data.test)
    chance = float(np.log(data.classes))
    found = []
    for switch in SWITCHES:
        for depth in depths:
            branch = partial(ReluLayer, settings.width)
            model = SwitchClassifier(data.classes, settings.width, depth, switch, branch)
            run = train_grid(
                init_of(model, rows), loss_of(model, rows, ROWS), settings.grid_seeds,
                settings.rates, settings.grid_steps,
                observe=lambda params, m=model: final_scores(m, params, rows, test),
            )  # fmt: skip
            loss, accuracy = (np.asarray(each)[:, :, -1] for each in run.seen)
            found.append(
                {
                    "network": switch.label, "depth": depth, "loss": loss.tolist(),
                    "accuracy": accuracy.tolist(), "chance": chance,
                    "lost": statistics.diverged(loss[..., None], chance).tolist(),
                }
            )  # fmt: skip
    return found


def final_scores(model, params, rows, test) -> tuple[jax.Array, jax.Array]:
    """Loss on the first training rows, and accuracy on test rows."""
    logits = model.apply(params, rows.x[:256])
    logs = jax.nn.log_softmax(logits)[jnp.arange(len(logits)), rows.y[:256]]
    return -logs.mean(), (model.apply(params, test.x).argmax(-1) == test.y).mean()


def best(row: dict[str, Any]) -> tuple[float, float]:
    """Accuracy (mean over seeds) at the rate with the least median training loss, and that loss."""
    loss = np.nan_to_num(np.array(row["loss"]), nan=np.inf, posinf=np.inf)
    rate = int(np.argmin(np.median(loss, axis=0)))
    return float(np.array(row["accuracy"])[:, rate].mean()), float(np.median(loss[:, rate]))


def depth_claim(settings: Settings) -> dict[str, Any]:
    """Measure C1."""
    profiles, trained = gradients(settings), trainings(settings, settings.depths)
    deepest = max(settings.depths)
    numbers: dict[str, Any] = {"deepest": deepest, "majority": problem("rows").majority}
    for switch in SWITCHES:
        name = switch.label.replace(" ", "_")
        factors = [
            r["factor"] for r in profiles if r["network"] == switch.label and r["depth"] == deepest
        ]
        worst = max(factors, key=lambda f: abs(np.log(max(f, statistics.FLOOR))))
        numbers[f"{name}_factor"] = worst
        numbers[f"{name}_off"] = float(np.exp(abs(np.log(max(worst, statistics.FLOOR)))))
        (row,) = [r for r in trained if r["network"] == switch.label and r["depth"] == deepest]
        numbers[f"{name}_accuracy"] = best(row)[0]
    return {"profiles": profiles, "trained": trained, "numbers": numbers}
