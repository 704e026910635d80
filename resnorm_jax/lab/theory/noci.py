"""Dong et al. 2021 and Noci et al. 2022: rank collapse, what it does to gradients, and its cure."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax import arrangements
from resnorm_jax.arrangements import Arrangement, Init, Place
from resnorm_jax.lab.theory.claim import Bound, Claim, Measured, Panel, spread_line
from resnorm_jax.lab.theory.probe import (
    QUERY,
    VALUE,
    Setup,
    draw,
    head_loss,
    norm_by_layer,
    normal_init,
    over_seeds,
    token_cosine,
)

SETUP = Setup()
DEPTHS = (4, 16, 64, 128)
DONG, NOCI = "Dong et al. 2021 (arXiv 2103.03404)", "Noci et al. 2022 (arXiv 2206.03126)"


def by_root_of_depth(place: Place) -> float:
    """``1 / sqrt(L)``, L the layers of the stack."""
    return place.layers**-0.5


POST = normal_init("post_ln")
SCALED = {
    "Post-LN, branches / sqrt(L)": normal_init("post_ln", branch_scale=by_root_of_depth),
    "Pre-LN, branches / sqrt(L)": normal_init("pre_ln", branch_scale=by_root_of_depth),
}


def collapse(row: Arrangement, depth: int, key: jax.Array, setup: Setup = SETUP) -> dict:
    """Return ``cosine`` of the last layer's tokens, and ``ratio`` of its query and value gradients."""
    encoder = setup.encoder(row, depth)
    params, x, head, labels = draw(setup, encoder, key)

    def loss(p):
        out, named = encoder.apply({"params": p}, x, return_intermediates=True)
        return head_loss(out, head, labels), named["feed_forward/stream"][-1]

    gradient, last = jax.grad(loss, has_aux=True)(params)
    query, value = (norm_by_layer(gradient, path)[-1] for path in (QUERY, VALUE))
    return {"cosine": token_cosine(last), "ratio": query / value}


@lru_cache(maxsize=32)
def swept(row: Arrangement, depth: int, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return `collapse` over seeds; several claims look at the same encoders."""
    return over_seeds(partial(collapse, row, depth), seeds)


def _over_depth(row: Arrangement, depths: Sequence[int], seeds: Sequence[int], what: str):
    return np.stack([swept(row, depth, tuple(seeds))[what] for depth in depths])


def measure_cosine(seeds: Sequence[int]) -> Measured:
    """Measure Post-LN's token cosine at 4 to 64 layers."""
    depths = DEPTHS[:3]
    found = _over_depth(POST, depths, seeds, "cosine")
    numbers = {f"cosine_{d}_layers": float(v) for d, v in zip(depths, found.mean(1), strict=True)}
    line = spread_line("Post-LN", depths, found)
    band = ((16, 64), (0.99, 0.99), (1.0, 1.0))
    return Measured(numbers, (Panel("layers", "cosine between tokens", (line,), band, "x"),))


def measure_ratio(seeds: Sequence[int]) -> Measured:
    """Measure Post-LN's gradient ratio at 4 to 64 layers."""
    depths = DEPTHS[:3]
    found = _over_depth(POST, depths, seeds, "ratio")
    numbers = {f"ratio_{d}_layers": float(v) for d, v in zip(depths, found.mean(1), strict=True)}
    line = spread_line("Post-LN", depths, np.maximum(found, 1e-12))
    band = ((16, 64), (1e-12, 1e-12), (1e-3, 1e-6))
    label = "gradient of queries / of values"
    return Measured(numbers, (Panel("layers", label, (line,), band, "xy"),))


def measure_scaled_cosine(seeds: Sequence[int]) -> Measured:
    """Measure the cosine with branches scaled by ``1 / sqrt(L)``."""
    found = {n: _over_depth(row, DEPTHS, seeds, "cosine") for n, row in SCALED.items()}
    means = np.stack([f.mean(1) for f in found.values()])
    change = np.abs(means[:, DEPTHS.index(128)] - means[:, DEPTHS.index(16)])
    numbers = {"cosine": means.ravel().tolist(), "change_16_to_128": change.tolist()}
    lines = tuple(spread_line(n, DEPTHS, f) for n, f in found.items())
    band = (DEPTHS, (-1.0,) * 4, (0.4,) * 4)
    return Measured(numbers, (Panel("layers", "cosine between tokens", lines, band, "x"),))


def measure_scaled_ratio(seeds: Sequence[int]) -> Measured:
    """Measure the gradient ratio with branches scaled by ``1 / sqrt(L)``."""
    found = {n: _over_depth(row, DEPTHS, seeds, "ratio") for n, row in SCALED.items()}
    numbers = {"ratio": np.stack([f.mean(1) for f in found.values()]).ravel().tolist()}
    lines = tuple(spread_line(n, DEPTHS, f) for n, f in found.items())
    band = (DEPTHS, (0.1,) * 4, (1.0,) * 4)
    label = "gradient of queries / of values"
    return Measured(numbers, (Panel("layers", label, lines, band, "xy"),))


LAYERS = 12
ATTENTION_ONLY = {
    "without skip": ("none", "replace"),
    "with skip": ("residual_only", "add"),
}


def residual_by_layer(row: Arrangement, key: jax.Array, setup: Setup = SETUP) -> dict:
    """Return ``residual [N]``: the distance of the tokens to their mean, over their norm."""
    encoder = setup.encoder(row, LAYERS)
    params, x, *_ = draw(setup, encoder, key)
    _, named = encoder.apply({"params": params}, x, return_intermediates=True)
    streams = named["attention/stream"]
    apart = streams - streams.mean(-2, keepdims=True)
    ratio = jnp.square(apart).sum((1, 2, 3)) / jnp.square(streams).sum((1, 2, 3))
    return {"residual": jnp.sqrt(ratio)}


def attention_only(name: str) -> Arrangement:
    """Return a row whose layers are attention alone, kernels normal."""
    row = arrangements.get(name)
    return replace(row, order=((arrangements.ATTENTION,),), init=Init("normal"))


def measure_attention(seeds: Sequence[int]) -> Measured:
    """Measure how far attention alone is from rank one, with and without a skip."""
    found = {
        label: over_seeds(partial(residual_by_layer, attention_only(name)), seeds)["residual"].T
        for label, (name, _) in ATTENTION_ONLY.items()
    }
    at = 5  # the sixth layer
    without, skipped = (found[label].mean(1)[at] for label in ATTENTION_ONLY)
    numbers = {
        "residual_without_skip_layer_6": float(without),
        "residual_with_skip_layer_6": float(skipped),
        "with_over_without": float(skipped / max(without, 1e-12)),
    }
    x = list(range(1, LAYERS + 1))
    lines = tuple(spread_line(n, x, np.maximum(f, 1e-9)) for n, f in found.items())
    band = ((6, 12), (1e-9, 1e-9), (1e-5, 1e-5))
    return Measured(numbers, (Panel("layer", "distance to rank one", lines, band, "y"),))


_SETUP = "width 64, 4 heads, feed-forward 256, ReLU, Xavier-normal kernels, 4 x 16 tokens N(0, 1)"
CLAIMS = (
    Claim(
        "dong_attention_collapse",
        "Attention alone drives all tokens to one, doubly exponentially; a skip prevents it.",
        f"{DONG}, abstract and sections 2 and 3",
        (Bound("residual_without_skip_layer_6", high=1e-5), Bound("with_over_without", low=1e3)),
        measure_attention,
        f"{_SETUP}; 12 layers of attention alone, neither norm nor feed-forward network",
        seeds=4,
        seconds=5,
        reading="Without the skip the line falls ever more steeply to float32's rounding; with it "
        "the line falls slowly and evenly.",
        why="ours, fixed before measuring",
    ),
    Claim(
        "noci_rank_collapse",
        "Post-LN: from 16 layers on all tokens point the same way.",
        f"{NOCI}, section 3, after {DONG}",
        (Bound("cosine_16_layers", low=0.99), Bound("cosine_64_layers", low=0.99)),
        measure_cosine,
        _SETUP,
        seeds=4,
        seconds=12,
        reading="At 1 every token is the same but for its length: nothing is left to attend to.",
    ),
    Claim(
        "noci_vanishing_queries",
        "Post-LN: as tokens align, gradients of queries vanish and those of values do not.",
        f"{NOCI}, abstract and section 3",
        (Bound("ratio_16_layers", high=1e-3), Bound("ratio_64_layers", high=1e-6)),
        measure_ratio,
        f"{_SETUP}; 10-class head on the mean token; norms of the last layer's gradients",
        seeds=4,
        seconds=12,
        reading="The lower the point, the less attention can learn where to look.",
    ),
    Claim(
        "noci_scaled_cosine",
        "Branches scaled by one over the root of depth keep tokens apart at every depth.",
        f"{NOCI}, abstract (depth-dependent scaling of the branches)",
        (Bound("cosine", high=0.4), Bound("change_16_to_128", high=0.15)),
        measure_scaled_cosine,
        f"{_SETUP}; 4 to 128 layers",
        seeds=4,
        seconds=30,
        reading="Both lines stay low and flat where Post-LN's goes to 1.",
    ),
    Claim(
        "noci_scaled_queries",
        "With such branches, gradients of queries stay comparable to those of values.",
        f"{NOCI}, abstract (depth-dependent scaling of the branches)",
        (Bound("ratio", low=0.1),),
        measure_scaled_ratio,
        f"{_SETUP}; 10-class head on the mean token; norms of the last layer's gradients",
        seeds=4,
        seconds=30,
        reading="Both lines stay above the band's lower edge at every depth.",
    ),
)
