"""Bachlechner et al. 2020 (ReZero): a deep fully connected network, and no warm-up."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.lab.problems import problem
from resnorm_jax.lab.theory.claim import DIVERGED, Bound, Claim, Line, Measured, Panel, finite
from resnorm_jax.lab.theory.probe import over_seeds
from resnorm_jax.lab.theory.rezero import CODE, PAPER
from resnorm_jax.lab.theory.short_training import (
    DIRECTIONS,
    Recipe,
    classifier,
    train_runs,
)
from resnorm_jax.lab.trainer import cross_entropy, descent, drawn_rows
from resnorm_jax.ops.norms import layer_norm
from resnorm_jax.ops.residual import residual

# --- 64 fully connected layers ---

Layer = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def _branch(x, kernel, bias):
    return jax.nn.relu(x @ kernel + bias)


# x, kernel, bias, gate -> x
LAYERS: dict[str, Layer] = {
    "vanilla": lambda x, w, b, g: _branch(x, w, b),
    "residual": lambda x, w, b, g: residual(x, _branch(x, w, b)),
    "layer norm": lambda x, w, b, g: layer_norm(_branch(x, w, b)),
    "ReZero": lambda x, w, b, g: residual(x, _branch(x, w, b), branch_scale=g),
}
DEPTH, WIDTH, BATCH, STEPS = 64, 128, 100, 180


def deep_parameters(key: jax.Array, inputs: int, classes: int, depth=DEPTH, width=WIDTH) -> dict:
    """Return first parameters, uniform within ``1 / sqrt(fan in)`` as PyTorch's, gates 0."""
    keys = jax.random.split(key, 6)

    def uniform(key, *shape, fan):
        return jax.random.uniform(key, shape, minval=-1, maxval=1) * fan**-0.5

    return {
        "first": uniform(keys[0], inputs, width, fan=inputs),
        "first_bias": uniform(keys[1], width, fan=inputs),
        "kernel": uniform(keys[2], depth, width, width, fan=width),
        "bias": uniform(keys[3], depth, width, fan=width),
        "gate": jnp.zeros(depth),
        "last": uniform(keys[4], width, classes, fan=width),
        "last_bias": uniform(keys[5], classes, fan=width),
    }


def deep_logits(layer: Layer, p: dict, x: jax.Array) -> jax.Array:
    """Return class logits of ``x [B, C]``, layers scanned."""

    def step(h, given):
        return layer(h, *given), None

    h = x @ p["first"] + p["first_bias"]
    h, _ = jax.lax.scan(step, h, (p["kernel"], p["bias"], p["gate"]))
    return h @ p["last"] + p["last_bias"]


def deep_losses(layer: Layer, key: jax.Array, rows, steps: int = STEPS) -> dict:
    """Return ``loss [T]`` of each step's batch, Adagrad of rate .01."""
    x, y, _ = rows
    first, order = jax.random.split(key)
    params = deep_parameters(first, x.shape[-1], 10)
    optimizer = optax.chain(DIRECTIONS["adagrad"](), optax.scale(-0.01))

    def loss(p, number):
        chosen = drawn_rows(order, number, len(y), BATCH)
        return cross_entropy(deep_logits(layer, p, x[chosen]), y[chosen]), None

    start = (params, optimizer.init(params))
    _, losses = jax.lax.scan(descent(loss, optimizer), start, jnp.arange(steps))
    return {"loss": losses}


def measure_deep(seeds: Sequence[int]) -> Measured:
    """Measure the training loss of 64 fully connected layers."""
    rows = problem("rows").train.flat()
    numbers: dict[str, float] = {}
    lines: list[Line] = []
    for name, layer in LAYERS.items():
        loss = finite(over_seeds(partial(deep_losses, layer, rows=rows), seeds)["loss"])
        numbers[name.lower().replace(" ", "_")] = min(float(loss[:, -20:].mean()), DIVERGED)
        shown = np.clip(loss.mean(0).reshape(-1, 10).mean(1), 1e-4, 1e4)
        lines.append(Line(name, list(range(10, loss.shape[1] + 1, 10)), shown.tolist()))
    band = ((STEPS - 20, STEPS), (1e-4, 1e-4), (0.1, 0.1))
    panel = Panel("step", "training loss (nats)", tuple(lines), band, "y")
    return Measured(numbers, (panel,))


# --- Without warm-up ---

RECIPE = Recipe(direction="adagrad")
TRAINED = {"Post-LN": "post_ln", "Pre-LN": "pre_ln", "ReZero": "rezero"}


def measure_order(seeds: Sequence[int]) -> Measured:
    """Measure the loss of 12 layers trained by Adagrad without warm-up."""
    rates = [np.full(RECIPE.steps, 0.01)] * len(seeds)
    numbers: dict[str, float] = {}
    lines: list[Line] = []
    for label, name in TRAINED.items():
        found = train_runs(classifier(name, "layer", RECIPE), RECIPE, rates, seeds)
        key = label.lower().replace("-", "_")
        numbers[f"{key}_loss"] = float(finite(found.train_loss).mean())
        numbers[f"{key}_accuracy"] = float(found.train_accuracy.mean())
        curve = finite(found.loss).mean(0).reshape(-1, 10).mean(1)
        lines.append(Line(label, list(range(10, RECIPE.steps + 1, 10)), curve.tolist()))
    numbers["rezero_minus_pre_ln_loss"] = numbers["rezero_loss"] - numbers["pre_ln_loss"]
    band = ((RECIPE.steps - 30, RECIPE.steps), (2.0, 2.0), (3.0, 3.0))
    panel = Panel("step", "training loss (nats)", tuple(lines), band)
    return Measured(numbers, (panel,))


CLAIMS = (
    Claim(
        "rezero_deep",
        "64 fully connected layers train with ReZero, and not as vanilla, residual or normed layers.",
        f"{PAPER}, abstract; {CODE} ReZero-Deep_Fast_NeuralNetwork.ipynb",
        (
            Bound("rezero", high=0.1),
            Bound("vanilla", low=1),
            Bound("residual", low=1),
            Bound("layer_norm", low=1),
        ),
        measure_deep,
        f"digits, 64 layers of width {WIDTH}, ReLU, Adagrad .01, batch 100, {STEPS} steps (the paper: "
        "CIFAR-10, width 256, 10 epochs); mean loss of the last 20 steps",
        seeds=3,
        seconds=40,
        reading="Lines that stay at 2.3, the loss of guessing, learn nothing. Clipped at 1e4.",
    ),
    Claim(
        "rezero_no_warmup",
        "12 layers without warm-up: Post-LN is stuck; Pre-LN and ReZero train alike.",
        f"{PAPER}, abstract; {CODE} ReZero-Deep_Fast_Transformer.ipynb",
        (
            Bound("post_ln_loss", low=2.0),
            Bound("pre_ln_accuracy", low=0.8),
            Bound("rezero_minus_pre_ln_loss", high=0.1),
        ),
        measure_order,
        "digits by rows, width 32, 4 heads, Adagrad .01 (as the code has), batch 32, 300 steps, no "
        "warm-up; all training rows",
        seeds=5,
        seconds=45,
        reading="2.3 is the loss of guessing. The shaded region is where Post-LN should end.",
        why="ours, of the paper's order; fixed before measuring",
    ),
)
