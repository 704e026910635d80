"""Sun et al. 2025 (curse of depth) and others: how the stream grows, and which layers matter."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.arrangements import Arrangement
from resnorm_jax.lab.theory.claim import Bound, Claim, Line, Measured, Panel, slope, spread_line
from resnorm_jax.lab.theory.probe import Setup, draw, mean_square, normal_init, over_seeds
from resnorm_jax.lab.theory.short_training import Recipe, classifier, load_task, train_runs, warm

PAPER = "Sun et al. 2025 (arXiv 2502.05795)"
SETUP = Setup()
DEEP = 128


def growth(row: Arrangement, key: jax.Array, setup: Setup = SETUP, depth: int = DEEP) -> dict:
    """Return by layer ``[N]`` the ``stream``'s mean square and the ``branch``es' share of it."""
    encoder = setup.encoder(row, depth)
    params, x, *_ = draw(setup, encoder, key)
    _, named = encoder.apply({"params": params}, x, return_intermediates=True)
    each = jax.vmap(mean_square)
    branch = each(named["feed_forward/branch_out"]) / each(named["feed_forward/stream"])
    return {"stream": each(named["feed_forward/stream"]), "branch": branch}


def measure_growth(name: str, label: str, ratio: tuple[float, float], seeds) -> Measured:
    """Measure the stream's mean square at layer 128 over that at layer 16."""
    found = over_seeds(partial(growth, normal_init(name)), seeds)["stream"]
    mean = found.mean(0)
    layers = np.arange(1, DEEP + 1)
    numbers = {
        "layer_128_over_layer_16": float(mean[127] / mean[15]),
        "slope_16_to_128": slope(layers[15:], mean[15:]),
        **{f"mean_square_layer_{n}": float(mean[n - 1]) for n in (4, 16, 64, 128)},
    }
    low, high = (np.full(2, mean[15] * r) for r in ratio)
    band = ((120, 140), low, high)
    panel = Panel(
        "layer", "mean square of the stream", (spread_line(label, layers.tolist(), found.T),),
        band, "xy",
    )  # fmt: skip
    return Measured(numbers, (panel,))


def measure_share(seeds: Sequence[int]) -> Measured:
    """Measure the share of a Pre-LN branch in the stream, layer by layer."""
    found = over_seeds(partial(growth, normal_init("pre_ln")), seeds)["branch"]
    mean, layers = found.mean(0), np.arange(1, DEEP + 1)
    start = mean[7] * (layers[7:] / 8.0) ** -1
    band = (layers[7:], start / 1.5, start * 1.5)
    line = spread_line("Pre-LN", layers.tolist(), found.T)
    numbers = {"slope_8_to_128": slope(layers[7:], mean[7:]), "share_layer_128": float(mean[-1])}
    return Measured(
        numbers, (Panel("layer l", "branch / stream, mean squares", (line,), band, "xy"),)
    )


# --- Removing a layer ---

RECIPE = Recipe(depth=16, steps=300)
RATE, WARMUP = 1e-3, 50
# Half of the layers are deep; a drop below this is none.
LEAST = 1e-3


def without_layer(params, layer):
    """Return a classifier's parameters with both branches of one layer 0: the layer does nothing."""
    kept = {"out", "fc2"}

    def fixed(path, leaf):
        names = [entry.key for entry in path]
        if names[0] != "encoder" or not kept & set(names):
            return leaf
        on = jnp.arange(len(leaf)) != layer
        return leaf * on.reshape(-1, *[1] * (leaf.ndim - 1))

    return jax.tree_util.tree_map_with_path(fixed, params)


def accuracy_without(model, variables, rows) -> dict[str, jax.Array]:
    """Return the accuracy of one trained model, ``whole`` and ``without`` each layer, ``[N]``."""
    x, y, mask = rows

    def score(params):
        return (model.apply({"params": params}, x, mask).argmax(-1) == y).mean()

    params = variables["params"]
    layers = jnp.arange(RECIPE.depth)
    each = jax.lax.map(lambda layer: score(without_layer(params, layer)), layers)
    return {"whole": score(params), "without": each}


@lru_cache(maxsize=8)
def removal(name: str, seeds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the drop of accuracy ``[seeds, N]`` when one layer is removed, and the accuracy."""
    model = classifier(name, "layer", RECIPE)
    rates = [warm(RATE, WARMUP, RECIPE.steps)] * len(seeds)
    runs = train_runs(model, RECIPE, rates, seeds)
    rows = load_task(RECIPE.task).train
    score = jax.jit(lambda v: jax.lax.map(lambda one: accuracy_without(model, one, rows), v))
    found = {k: np.asarray(v) for k, v in score(runs.variables).items()}
    return found["whole"][:, None] - found["without"], found["whole"]


def deep_over_shallow(drop: np.ndarray) -> float:
    """Return the mean drop of the deeper half over that of the shallower half."""
    half = drop.shape[1] // 2
    return float(max(drop[:, half:].mean(), 0.0) / max(drop[:, :half].mean(), LEAST))


def measure_removal(seeds: Sequence[int]) -> Measured:
    """Measure what removing one layer of a trained model costs."""
    numbers: dict[str, Any] = {}
    lines: list[Line] = []
    for name, label in (("pre_ln", "Pre-LN"), ("layer_norm_scaling", "LayerNorm Scaling")):
        drop, whole = removal(name, tuple(seeds))
        numbers[f"{name}_deep_over_shallow"] = deep_over_shallow(drop)
        numbers[f"{name}_accuracy"] = float(whole.mean())
        numbers[f"{name}_drop_by_layer"] = drop.mean(0).tolist()
        x = list(range(1, drop.shape[1] + 1))
        lines.append(Line(label, x, (100 * drop.mean(0)).tolist()))
    pre, scaled = (numbers[f"{n}_deep_over_shallow"] for n in ("pre_ln", "layer_norm_scaling"))
    numbers["scaled_over_pre"] = scaled / max(pre, LEAST)
    panel = Panel("layer removed", "drop of training accuracy (points)", tuple(lines))
    return Measured(numbers, (panel,))


_SETUP = (
    "width 64, 4 heads, feed-forward 256, ReLU, Xavier-normal kernels, 4 x 16 tokens N(0, 1), "
    "128 layers"
)
_REMOVAL = (
    "digits by rows, 16 layers, width 32, Adam 1e-3 after 50 steps of warm-up, 300 steps, batch 32; "
    "one layer removed after training; drop of training accuracy, deeper half / shallower half"
)
_REMOVED = (
    "A high point is a layer that the model needs. Flat to the right: deep layers that could as well "
    "be left out."
)
CLAIMS = (
    Claim(
        "pre_ln_variance",
        "Pre-LN: the variance of the stream grows in proportion to depth.",
        f"{PAPER}, abstract and section 3; at first parameters",
        (Bound("layer_128_over_layer_16", 5, 12),),
        partial(measure_growth, "pre_ln", "Pre-LN", (5, 12)),
        _SETUP,
        seeds=4,
        seconds=5,
        reading="A straight line of slope 1. The band stands at layer 128, from that at layer 16.",
    ),
    Claim(
        "layer_norm_scaling_variance",
        "LayerNorm Scaling: the variance of the stream grows as the logarithm of depth only.",
        f"{PAPER}, abstract and section 4; at first parameters",
        (Bound("layer_128_over_layer_16", 1.2, 2.2),),
        partial(measure_growth, "layer_norm_scaling", "LayerNorm Scaling", (1.2, 2.2)),
        _SETUP,
        seeds=4,
        seconds=5,
        reading="The line bends flat. The band stands at layer 128, from that at layer 16.",
    ),
    Claim(
        "peri_ln_variance",
        "Peri-LN: the variance of the stream grows linearly with depth.",
        "Kim et al. 2025 (arXiv 2502.02732), section 3; at first parameters",
        (Bound("slope_16_to_128", 0.8, 1.2),),
        partial(measure_growth, "sandwich_ln", "Peri-LN", (8**0.8, 8**1.2)),
        _SETUP,
        seeds=4,
        seconds=5,
        reading="A straight line of slope 1: each branch is normalized, so each adds the same.",
        why="ours, around the exponent 1; fixed before measuring",
    ),
    Claim(
        "branch_share",
        "Norms make deep residual blocks small beside the skip: a branch's share falls as 1 / l.",
        "De and Smith 2020 (arXiv 2002.10444), abstract; there BatchNorm, here Pre-LN",
        (Bound("slope_8_to_128", -1.2, -0.8),),
        measure_share,
        _SETUP,
        seeds=4,
        seconds=5,
        reading="A straight line of slope -1: at layer l the stream holds l branches of like size.",
        why="ours, around the exponent -1; fixed before measuring",
    ),
    Claim(
        "curse_of_depth",
        "Pre-LN, trained: deep layers matter less than shallow ones.",
        f"{PAPER}, abstract (nearly half of the layers are less effective)",
        (Bound("pre_ln_deep_over_shallow", high=0.9),),
        measure_removal,
        _REMOVAL,
        seeds=5,
        seconds=70,
        reading=_REMOVED,
        why="ours, of the direction; fixed before measuring, as one claim with "
        "layer_norm_scaling_removal, which failed",
    ),
    Claim(
        "layer_norm_scaling_removal",
        "With LayerNorm Scaling this is less so: deep layers matter more than Pre-LN's.",
        f"{PAPER}, abstract (deeper layers contribute more)",
        (Bound("scaled_over_pre", low=1.1),),
        measure_removal,
        f"{_REMOVAL} (the runs of curse_of_depth)",
        seeds=5,
        seconds=2,
        reading=_REMOVED,
        why="ours, of the direction; fixed before measuring",
    ),
)
