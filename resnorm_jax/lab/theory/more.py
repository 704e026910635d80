"""Mix-LN's gradients, hyper-connections' gain, and norms compared on real data."""

from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.arrangements import Arrangement
from resnorm_jax.lab.theory.claim import Bound, Claim, Line, Measured, Panel, spread_line
from resnorm_jax.lab.theory.probe import (
    FC2,
    Setup,
    draw,
    head_loss,
    norm_by_layer,
    normal_init,
    over_seeds,
)
from resnorm_jax.lab.theory.trained import Recipe, classifier, train_runs, warm
from resnorm_jax.schemes.manifold import permutation_mix, sinkhorn

SETUP, DEPTH = Setup(), 24


def gradient_by_layer(row: Arrangement, key: jax.Array, setup: Setup = SETUP) -> dict:
    """Return ``norm [N]``, the gradient of each layer's fc2."""
    encoder = setup.encoder(row, DEPTH)
    params, x, head, labels = draw(setup, encoder, key)
    gradient = jax.grad(lambda p: head_loss(encoder.apply({"params": p}, x), head, labels))(params)
    return {"norm": norm_by_layer(gradient, FC2)}


def measure_mix(seeds: Sequence[int]) -> Measured:
    """Measure gradients by layer of Mix-LN, Pre-LN and Post-LN."""
    names = {"Mix-LN": "mix_ln", "Pre-LN": "pre_ln", "Post-LN": "post_ln"}
    found = {
        label: over_seeds(partial(gradient_by_layer, normal_init(name)), seeds)["norm"]
        for label, name in names.items()
    }
    mean = {label: f.mean(0) for label, f in found.items()}
    deep, shallow = slice(DEPTH // 2, None), slice(0, DEPTH // 4)
    numbers = {
        "deep_mix_over_pre": float(mean["Mix-LN"][deep].mean() / mean["Pre-LN"][deep].mean()),
        "shallow_mix_over_post": float(
            mean["Mix-LN"][shallow].mean() / mean["Post-LN"][shallow].mean()
        ),
    }
    x = list(range(1, DEPTH + 1))
    lines = tuple(spread_line(label, x, f.T) for label, f in found.items())
    return Measured(numbers, (Panel("layer", "gradient of fc2", lines, None, "y"),))


SUBLAYERS, STREAMS = 128, 4


def gains(key: jax.Array, scale: float = 0.3) -> dict:
    """Return ``[S]`` for each kind: largest row or column sum of the product of 1 to S mixings.

    All see the same logits; the unconstrained matrices are ``I + scale * logits``.
    """
    square = jax.random.normal(key, (SUBLAYERS, STREAMS, STREAMS))
    many = jax.random.normal(jax.random.fold_in(key, 1), (SUBLAYERS, 24))
    chains = {
        "Sinkhorn": sinkhorn(square),
        "permutations": permutation_mix(many),
        "unconstrained": jnp.eye(STREAMS) + scale * square,
    }

    def step(product, matrix):
        product = product @ matrix
        size = jnp.abs(product)
        return product, jnp.maximum(size.sum(0).max(), size.sum(1).max())

    return {n: jax.lax.scan(step, jnp.eye(STREAMS), chain)[1] for n, chain in chains.items()}


def measure_gains(seeds: Sequence[int]) -> Measured:
    """Measure the composite gain of 128 mixings."""
    found = over_seeds(gains, seeds)
    numbers = {f"gain_{n.lower()}": float(f[:, -1].mean()) for n, f in found.items()}
    x = list(range(1, SUBLAYERS + 1))
    lines = tuple(spread_line(n, x, f.T) for n, f in found.items())
    band = (x, np.full(SUBLAYERS, 0.9), np.full(SUBLAYERS, 1.6))
    return Measured(numbers, (Panel("sublayers", "composite gain", lines, band, "y"),))


# --- Norms on real data ---

DIGITS = Recipe(depth=4, steps=400, dropout=0.1)
VOWELS = Recipe(task="vowels", depth=3, steps=250, dropout=0.1)
RATE, WARMUP = 3e-3, 40


@lru_cache(maxsize=16)
def scores(row: str, norm: str, recipe: Recipe, seeds: tuple[int, ...]) -> np.ndarray:
    """Return test accuracy by seed; several claims share the layer norm's runs."""
    rates = [warm(RATE, WARMUP, recipe.steps)] * len(seeds)
    return train_runs(classifier(row, norm, recipe), recipe, rates, seeds).test_accuracy


def measure_norms(
    row: str, first: str, second: str, recipe: Recipe, number: str, seeds: Sequence[int]
) -> Measured:
    """Measure test accuracy with one norm less that with another, seed by seed."""
    a, b = (np.asarray(scores(row, n, recipe, tuple(seeds)), float) for n in (first, second))
    apart = a - b
    error = apart.std(ddof=1) / len(apart) ** 0.5 if len(apart) > 1 else 0.0
    numbers = {
        number: float(apart.mean()),
        f"{number}_over_standard_error": float(apart.mean() / max(error, 1e-4)),
        f"{first}_accuracy": a.tolist(),
        f"{second}_accuracy": b.tolist(),
    }
    x = list(seeds)
    lines = tuple(Line(n, x, (100 * v).tolist()) for n, v in ((first, a), (second, b)))
    return Measured(numbers, (Panel("seed", "test accuracy (%)", lines),))


_DIGITS = (
    "digits by rows, 4 layers, width 32, Adam 3e-3 after 40 steps of warm-up, dropout .1, 400 steps, "
    "batch 32; test rows scored once a seed"
)
_PAIRS = "Each point is a seed; the two lines start from the same seed and see the same batches."
XU = "Xu et al. 2019 (arXiv 1911.07013)"
CLAIMS = (
    Claim(
        "mix_ln_gradient",
        "Mix-LN: deep layers have larger gradients than Pre-LN's, shallow ones than Post-LN's.",
        "Li et al. 2024 (arXiv 2412.13795), abstract (more uniform gradients)",
        (Bound("deep_mix_over_pre", low=1), Bound("shallow_mix_over_post", low=1)),
        measure_mix,
        "width 64, 4 heads, feed-forward 256, 24 layers, 4 x 16 tokens N(0, 1), 10-class head; first "
        "parameters",
        seeds=8,
        seconds=12,
        reading="Mix-LN's line should lie above Post-LN's at the left and above Pre-LN's at the right.",
        why="ours, of the direction; fixed before measuring",
    ),
    Claim(
        "mhc_gain",
        "Doubly stochastic mixing keeps the composite gain near 1; free mixing explodes.",
        "Xie et al. 2025 (arXiv 2512.24880), figure of the composite gain",
        (
            Bound("gain_sinkhorn", 0.9, 1.6),
            Bound("gain_permutations", 0.9, 1.6),
            Bound("gain_unconstrained", low=100),
        ),
        measure_gains,
        "128 random mixings of 4 streams, logits N(0, 1); free ones I + 0.3 N(0, 1)",
        seeds=10,
        seconds=4,
        reading="The gain is the most that any stream can grow by from first to last sublayer.",
        why="the paper's greatest gain (1.6); the lower edge and the free mixing's are ours",
    ),
    Claim(
        "dyt_trains",
        "DyT trains as well as layer norm does.",
        "Zhu et al. 2025 (arXiv 2503.10622), abstract",
        (Bound("dyt_minus_layer", low=-0.02),),
        partial(measure_norms, "pre_ln", "dyt", "layer", DIGITS, "dyt_minus_layer"),
        f"{_DIGITS}; Pre-LN",
        seeds=5,
        seconds=30,
        reading=_PAIRS,
        why="ours, fixed before measuring",
    ),
    Claim(
        "layer_norm_simple",
        "Layer norm without gain and bias is no worse than with them.",
        f"{XU}, abstract and section 3 (LayerNorm-simple)",
        (Bound("simple_minus_layer", low=-0.01),),
        partial(measure_norms, "post_ln", "layer_plain", "layer", DIGITS, "simple_minus_layer"),
        f"{_DIGITS}; Post-LN",
        seeds=5,
        seconds=30,
        reading=_PAIRS,
        why="ours, fixed before measuring",
    ),
    Claim(
        "detach_norm",
        "Without the gradients of mean and deviation (DetachNorm), layer norm is worse.",
        f"{XU}, abstract and section 3",
        (Bound("layer_minus_detach", low=0.01),),
        partial(measure_norms, "post_ln", "layer_plain", "detach", DIGITS, "layer_minus_detach"),
        f"{_DIGITS}; Post-LN, both without gain and bias",
        seeds=5,
        seconds=20,
        reading=_PAIRS,
        why="ours, fixed before measuring",
    ),
    Claim(
        "batch_norm_series",
        "Time series: batch norm is better than layer norm.",
        "Zerveas et al. 2021 (arXiv 2010.02803), section 3",
        (
            Bound("batch_minus_layer", low=0.0),
            Bound("batch_minus_layer_over_standard_error", low=1),
        ),
        partial(measure_norms, "post_ln", "batch", "layer", VOWELS, "batch_minus_layer"),
        "JapaneseVowels, official split, 3 layers, width 32, Post-LN, Adam 3e-3 after 40 steps of "
        "warm-up, dropout .1, 250 steps, batch 32; test rows scored once a seed",
        seeds=5,
        seconds=60,
        reading=_PAIRS,
        why="ours (better by at least one standard error), fixed before measuring",
    ),
)
