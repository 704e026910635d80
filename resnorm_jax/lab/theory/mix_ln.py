"""Li et al. 2024 (Mix-LN): gradients of shallow and of deep layers."""

from collections.abc import Sequence
from functools import partial

import jax

from resnorm_jax.arrangements import Arrangement
from resnorm_jax.lab.theory.claim import Bound, Claim, Measured, Panel, spread_line
from resnorm_jax.lab.theory.probe import (
    FC2,
    Setup,
    draw,
    head_loss,
    norm_by_layer,
    normal_init,
    over_seeds,
)

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
)
