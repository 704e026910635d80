"""Bachlechner et al. 2020 (ReZero): the Jacobian, a deep fully connected network, no warm-up."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax import arrangements
from resnorm_jax.arrangements import Arrangement, Init, Place
from resnorm_jax.lab.theory.claim import DIVERGED, Bound, Claim, Line, Measured, Panel, finite
from resnorm_jax.lab.theory.probe import Setup, over_seeds
from resnorm_jax.lab.theory.trained import DIRECTIONS, Recipe, classifier, load_task, train_runs
from resnorm_jax.ops.norms import layer_norm
from resnorm_jax.ops.residual import residual

PAPER = "Bachlechner et al. 2020 (arXiv 2003.04887)"
CODE = "tbachlechner/ReZero-examples"
SETUP = Setup(width=16, heads=4, mlp_width=64, tokens=4, batch=1)
DEPTHS = (12, 128)
FAN_IN = {"fc1": 16, "fc2": 64}


def packed(place: Place) -> float:
    """1 / sqrt(2): torch draws query, key and value as one ``3d x d`` kernel, Xavier's of its size."""
    return 0.5**0.5


# As the notebook's torch layers: packed projections, and no norm after the last Pre-LN layer.
_INIT = Init("uniform", dict.fromkeys(("query", "key", "value"), packed))
ROWS = {
    "Post-LN": replace(arrangements.get("post_ln"), init=_INIT),
    "Pre-LN": replace(arrangements.get("pre_ln"), init=_INIT, final_norm=None),
    "ReZero": replace(arrangements.get("rezero"), init=_INIT),
}
GATES = {"Post-LN": None, "Pre-LN": None, "ReZero": 0.1}


def as_torch(params, gate: float | None, key: jax.Array):
    """Return the parameters with gates set, and the feed-forward biases as torch draws them.

    Uniform within ``1 / sqrt(fan in)``; those of attention stay 0.
    """

    def fixed(path, leaf):
        names = [entry.key for entry in path]
        if names[-1] == "gate" and gate is not None:
            return jnp.full_like(leaf, gate)
        if names[-2:] not in (["fc1", "bias"], ["fc2", "bias"]):
            return leaf
        fan = FAN_IN[names[-2]]
        drawn = jax.random.uniform(jax.random.fold_in(key, fan), leaf.shape, minval=-1, maxval=1)
        return drawn * fan**-0.5

    return jax.tree_util.tree_map_with_path(fixed, params)


def jacobian(
    row: Arrangement, gate: float | None, depth: int, key: jax.Array, setup: Setup = SETUP
) -> jax.Array:
    """Return the Jacobian of output by input at one draw, ``[n D, n D]``."""
    encoder = setup.encoder(row, depth).clone(use_bias=True)
    first, second, third = jax.random.split(key, 3)
    x = setup.inputs(first)
    params = as_torch(encoder.init(second, x)["params"], gate, third)

    def flat(z):
        return jnp.ravel(encoder.apply({"params": params}, z.reshape(x.shape)))  # type: ignore[arg-type]

    return jax.jacfwd(flat)(x.ravel())


def spectrum(row: Arrangement, gate: float | None, depth: int, key: jax.Array) -> dict:
    """Return ``square``, the mean squared singular value, and the singular ``values``."""
    matrix = jacobian(row, gate, depth, key)
    values = jnp.linalg.svd(matrix, compute_uv=False)
    return {"square": jnp.square(matrix).sum() / len(matrix), "values": values}


def measure_jacobian(seeds: Sequence[int]) -> Measured:
    """Measure the mean squared singular value at 12 and 128 layers."""
    numbers: dict[str, float] = {}
    lines: list[Line] = []
    for name, row in ROWS.items():
        found = [
            over_seeds(partial(spectrum, row, GATES[name], d), seeds)["square"] for d in DEPTHS
        ]
        mean = [float(f.mean()) for f in found]
        key = name.lower().replace("-", "_")
        numbers |= {f"{key}_{d}_layers": m for d, m in zip(DEPTHS, mean, strict=True)}
        shown = [np.maximum(f, 1e-12) for f in found]
        low, high = ([float(getattr(f, end)()) for f in shown] for end in ("min", "max"))
        lines.append(Line(name, DEPTHS, [max(m, 1e-12) for m in mean], low, high))
    band = ((100, 160), (1.8, 1.8), (2.5, 2.5))
    panel = Panel("layers", "mean squared singular value", tuple(lines), band, "xy")
    return Measured(numbers, (panel,))


def measure_isometry(seeds: Sequence[int]) -> Measured:
    """Measure all singular values of 128 layers at first, gate 0."""
    found = {
        name: over_seeds(partial(spectrum, ROWS[name], gate, 128), seeds)["values"]
        for name, gate in (("ReZero", None), ("Pre-LN", None))
    }
    start, pre = found["ReZero"], found["Pre-LN"]
    numbers = {
        "farthest_from_one": float(np.abs(start - 1).max()),
        "pre_ln_greatest_over_least": float((pre[:, 0] / np.maximum(pre[:, -1], 1e-12)).mean()),
    }
    rank = list(range(1, start.shape[1] + 1))
    lines = tuple(Line(n, rank, np.maximum(v.mean(0), 1e-12).tolist()) for n, v in found.items())
    band = (rank, np.full(len(rank), 0.99), np.full(len(rank), 1.01))
    return Measured(numbers, (Panel("rank", "singular value", lines, band, "y"),))


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
    x, y = rows
    first, order = jax.random.split(key)
    params = deep_parameters(first, x.shape[-1], 10)
    optimizer = optax.chain(DIRECTIONS["adagrad"](), optax.scale(-0.01))

    def loss(p, chosen):
        logits = deep_logits(layer, p, x[chosen])
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[chosen]).mean()

    def step(carry, number):
        p, state = carry
        chosen = jax.random.randint(jax.random.fold_in(order, number), (BATCH,), 0, len(y))
        value, gradient = jax.value_and_grad(loss)(p, chosen)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(p, updates), state), value

    _, losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return {"loss": losses}


def measure_deep(seeds: Sequence[int]) -> Measured:
    """Measure the training loss of 64 fully connected layers."""
    x, _, y = load_task("digits")["train"]
    rows = (x.reshape(len(x), -1), y)
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
        "rezero_jacobian",
        "128 layers: the Jacobian vanishes with Post-LN, grows with Pre-LN, and stays near 1 with "
        "ReZero.",
        f"{PAPER}, figure of the Jacobian's spectrum; {CODE} ReZero-Deep_Fast_Transformer.ipynb",
        (
            Bound("post_ln_128_layers", high=0.01),
            Bound("pre_ln_128_layers", low=20),
            Bound("rezero_128_layers", 1.8, 2.5),
        ),
        measure_jacobian,
        "width 16, 4 tokens N(0, 1), 4 heads, feed-forward 64, parameters as torch draws them (kernels "
        "Xavier-uniform, query, key and value as one), gates 0.1, no final norm; mean squared singular "
        "value, mean of draws",
        seeds=10,
        seconds=20,
        reading="Near 1, a signal passes as large as it came. The band is ReZero's at 128 layers.",
    ),
    Claim(
        "rezero_isometry",
        "ReZero begins as the identity: every singular value of 128 layers is 1.",
        f"{PAPER}, abstract (initial dynamical isometry)",
        (Bound("farthest_from_one", high=1e-5), Bound("pre_ln_greatest_over_least", low=100)),
        measure_isometry,
        "as rezero_jacobian, gates 0; Pre-LN beside it",
        seeds=4,
        seconds=12,
        reading="A flat line at 1 passes every direction alike; a steep one loses some of them.",
        why="the identity but for rounding; Pre-LN's is ours, fixed before measuring",
    ),
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
