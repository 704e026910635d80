"""Wang et al. 2022 (DeepNet), and KEEL: updates and gradients that do not depend on depth."""

from collections.abc import Sequence
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

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

SETUP = Setup(norm="layer_plain")  # the theorem counts the projections, not the norms
DEPTHS = (4, 16, 64, 128)
RATE = 0.01
PAPER = "Wang et al. 2022 (arXiv 2203.00555)"
POST, DEEPNORM, KEEL = (normal_init(name) for name in ("post_ln", "deepnorm", "keel"))


def one_step(
    row: Arrangement, depth: int, key: jax.Array, setup: Setup = SETUP, rate: float = RATE
) -> dict:
    """Return what one step of gradient descent does.

    ``update`` is the mean length of the change of the output, over tokens; ``ratio`` the norm of the
    first layer's gradient of fc2 over the last's.
    """
    encoder = setup.encoder(row, depth)
    params, x, head, labels = draw(setup, encoder, key)

    def loss(p):
        out = encoder.apply({"params": p}, x)
        return head_loss(out, head, labels), out

    gradient, before = jax.grad(loss, has_aux=True)(params)
    moved = jax.tree.map(lambda p, g: p - rate * g, params, gradient)
    after = encoder.apply({"params": moved}, x)
    by_layer = norm_by_layer(gradient, FC2)
    change = jnp.linalg.norm(after - before, axis=-1).mean()
    return {"update": change, "ratio": by_layer[0] / by_layer[-1]}


@lru_cache(maxsize=32)
def swept(row: Arrangement, depth: int, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return `one_step` over seeds; several claims look at the same encoders."""
    return over_seeds(partial(one_step, row, depth), seeds)


def _over_depth(row: Arrangement, seeds: Sequence[int], what: str) -> np.ndarray:
    return np.stack([swept(row, depth, tuple(seeds))[what] for depth in DEPTHS])


UPDATE = "change of the output in one step"


def measure_update(seeds: Sequence[int]) -> Measured:
    """Measure DeepNorm's update over depth."""
    found = _over_depth(DEEPNORM, seeds, "update")
    mean = found.mean(1)
    numbers = {"greatest_over_least": float(mean.max() / mean.min()), "update": mean.tolist()}
    middle = float(np.sqrt(mean.max() * mean.min()))
    band = (DEPTHS, (middle / 1.3**0.5,) * 4, (middle * 1.3**0.5,) * 4)
    lines = (spread_line("DeepNorm", DEPTHS, found),)
    return Measured(numbers, (Panel("layers", UPDATE, lines, band, "x"),))


def measure_post_update(seeds: Sequence[int]) -> Measured:
    """Measure Post-LN's update beside DeepNorm's."""
    post, deep = (_over_depth(row, seeds, "update") for row in (POST, DEEPNORM))
    numbers = {
        "post_over_deepnorm": (post.mean(1) / deep.mean(1)).tolist(),
        "post_update": post.mean(1).tolist(),
    }
    lines = (spread_line("Post-LN", DEPTHS, post), spread_line("DeepNorm", DEPTHS, deep))
    low = 50 * deep.mean(1)
    band = (DEPTHS, low, np.maximum(post.mean(1).max(), low.max()) * np.ones(4) * 2)
    return Measured(numbers, (Panel("layers", UPDATE, lines, band, "xy"),))


def measure_ratio(row: Arrangement, label: str, seeds: Sequence[int]) -> Measured:
    """Measure the ratio of the first layer's gradient to the last's."""
    found = _over_depth(row, seeds, "ratio")
    band = (DEPTHS, (0.8,) * 4, (1.25,) * 4)
    lines = (spread_line(label, DEPTHS, found),)
    panel = Panel("layers", "gradient, first layer / last layer", lines, band, "x")
    return Measured({"first_over_last": found.mean(1).tolist()}, (panel,))


_SETUP = (
    "width 64, 4 heads, feed-forward 256, ReLU, Xavier-normal kernels, 4 x 16 tokens N(0, 1), "
    "10-class head on the mean token, norms without scale and bias; 4, 16, 64, 128 layers"
)
CLAIMS = (
    Claim(
        "deepnet_update",
        "DeepNorm: what one step of SGD does to the output does not depend on depth.",
        f"{PAPER}, theorem 4.2",
        (Bound("greatest_over_least", high=1.3),),
        measure_update,
        f"{_SETUP}; one step of rate .01",
        seeds=4,
        seconds=15,
        reading="A flat line: a step of the same rate moves 4 and 128 layers alike. The band is as "
        "high as 1.3 times its lower edge.",
        why="ours, from a pilot, fixed before this was measured; norms have no scale and "
        "bias, as in the theorem, since a first run that trained them had failed",
    ),
    Claim(
        "deepnet_post_update",
        "Post-LN: the same step moves the output far more, at every depth.",
        f"{PAPER}, section 3",
        (Bound("post_over_deepnorm", low=50),),
        measure_post_update,
        f"{_SETUP}; one step of rate .01",
        seeds=4,
        seconds=25,
        reading="The shaded region begins at 50 times DeepNorm's update; Post-LN should lie in it.",
    ),
    Claim(
        "deepnet_gradient",
        "DeepNorm: the first layer's gradient is as large as the last's.",
        f"{PAPER}, section 4",
        (Bound("first_over_last", 0.8, 1.25),),
        partial(measure_ratio, DEEPNORM, "DeepNorm"),
        f"{_SETUP}; norms of fc2's gradient",
        seeds=4,
        seconds=15,
        reading="1 means that no gradient is lost on its way down.",
    ),
    Claim(
        "keel_gradient",
        "KEEL: the first layer's gradient is as large as the last's.",
        "Chen and Wei 2026 (arXiv 2601.19895), abstract",
        (Bound("first_over_last", 0.8, 1.25),),
        partial(measure_ratio, KEEL, "KEEL"),
        f"{_SETUP}; norms of fc2's gradient",
        seeds=4,
        seconds=20,
        reading="1 means that no gradient is lost on its way down.",
        why="ours, DeepNorm's band; fixed before measuring",
    ),
)
