"""Norms compared on real data, trained from the same seeds."""

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from resnorm_jax.lab.theory.claim import Bound, Claim, Line, Measured, Panel
from resnorm_jax.lab.theory.short_training import Recipe, classifier, train_runs, warm

DIGITS = Recipe(depth=4, steps=400, dropout=0.1)
VOWELS = Recipe(task="speech", depth=3, steps=250, dropout=0.1)
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
