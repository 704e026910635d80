"""Who needs warm-up: Xiong et al. 2020, T-Fixup, Admin."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from resnorm_jax import arrangements
from resnorm_jax.lab.theory.claim import Bound, Claim, Line, Measured, Panel, finite
from resnorm_jax.lab.theory.short_training import (
    Prepare,
    Recipe,
    Runs,
    classifier,
    train_runs,
    warm,
)
from resnorm_jax.modules.admin import admin_profile

PAPER = "Xiong et al. 2020 (arXiv 2002.04745)"
RECIPE = Recipe(steps=300)
PEAKS, WARMUP = (1e-3, 3e-3), 200
CHANCE = 0.3  # training accuracy below this is counted as not trained; guessing has 0.1
SCHEDULES = tuple((peak, steps) for peak in PEAKS for steps in (0, WARMUP))

Schedules = tuple[tuple[float, int], ...]


@lru_cache(maxsize=8)
def runs(
    name: str, schedules: Schedules, seeds: tuple[int, ...], prepare: Prepare | None = None
) -> Runs:
    """Train with every schedule and seed, schedules first; several claims look at the same runs."""
    cases = [(schedule, seed) for schedule in schedules for seed in seeds]
    rates = [warm(*schedule, RECIPE.steps) for schedule, _ in cases]
    chosen = [seed for _, seed in cases]
    return train_runs(classifier(name, "layer", RECIPE), RECIPE, rates, chosen, prepare)


def by_schedule(found: Runs, seeds: Sequence[int]) -> np.ndarray:
    """Return training accuracy ``[schedules, seeds]``."""
    return found.train_accuracy.reshape(-1, len(seeds))


def _name(schedule: tuple[float, int]) -> str:
    return f"{schedule[0]:g}_warmup_{schedule[1]}"


def _panel(found: Runs, seeds: Sequence[int], labels: Sequence[str]) -> Panel:
    loss = finite(found.loss).reshape(len(labels), len(seeds), -1)
    curves = loss.mean(1).reshape(len(labels), -1, 10).mean(-1)
    x = list(range(10, loss.shape[-1] + 1, 10))
    lines = tuple(Line(n, x, c.tolist()) for n, c in zip(labels, curves, strict=True))
    return Panel("step", "training loss (nats), mean of seeds", lines)


_LABELS = [f"rate {p:g}, " + (f"warm-up {w}" if w else "no warm-up") for p, w in SCHEDULES]


def measure_post(seeds: Sequence[int]) -> Measured:
    """Measure how often Post-LN trains, with and without warm-up."""
    found = runs("post_ln", SCHEDULES, tuple(seeds))
    accuracy = by_schedule(found, seeds)
    stuck = (accuracy < CHANCE).mean(1)
    numbers = {
        f"share_at_chance_{_name(s)}": float(v) for s, v in zip(SCHEDULES, stuck, strict=True)
    }
    numbers |= {
        f"accuracy_{_name(s)}": a.tolist() for s, a in zip(SCHEDULES, accuracy, strict=True)
    }
    numbers["gain_by_warmup"] = float(accuracy[3].mean() - accuracy[2].mean())
    return Measured(numbers, (_panel(found, seeds, _LABELS),))


def measure_pre(seeds: Sequence[int]) -> Measured:
    """Measure what Pre-LN loses without warm-up."""
    found = runs("pre_ln", SCHEDULES, tuple(seeds))
    accuracy = by_schedule(found, seeds)
    loss = [float(accuracy[i + 1].mean() - accuracy[i].mean()) for i in (0, 2)]
    numbers = {
        "least_accuracy_without": float(accuracy[[0, 2]].min()),
        "lost_without_warmup": loss,
        **{f"accuracy_{_name(s)}": a.tolist() for s, a in zip(SCHEDULES, accuracy, strict=True)},
    }
    return Measured(numbers, (_panel(found, seeds, _LABELS),))


def small_embedding(model: Any, variables: Any, x: jax.Array, mask: jax.Array) -> Any:
    """Return the parameters with the embedding scaled as the arrangement's init rule has it."""
    init = arrangements.get(model.encoder.arrangement).init
    gain = init.embedding(arrangements.Place(layers=model.encoder.depth))
    params = variables["params"]
    return {**params, "front_end": jax.tree.map(lambda p: gain * p, params["front_end"])}


def measure_t_fixup(seeds: Sequence[int]) -> Measured:
    """Measure T-Fixup beside Post-LN, no warm-up, the higher rate."""
    schedule = SCHEDULES[2]
    post = by_schedule(runs("post_ln", SCHEDULES, tuple(seeds)), seeds)[2]
    found = runs("t_fixup", (schedule,), tuple(seeds), small_embedding)
    numbers = {
        "t_fixup_share_trained": float((found.train_accuracy >= CHANCE).mean()),
        "post_ln_share_trained": float((post >= CHANCE).mean()),
        "t_fixup_accuracy": found.train_accuracy.tolist(),
        "post_ln_accuracy": post.tolist(),
    }
    return Measured(numbers, (_panel(found, seeds, ["T-Fixup"]),))


DEEP = Recipe(depth=24, steps=300)
DEEP_WARMUP = 100


def measure_admin(seeds: Sequence[int]) -> Measured:
    """Measure Admin beside Post-LN at 24 layers, with warm-up."""
    rates = [warm(PEAKS[1], DEEP_WARMUP, DEEP.steps)] * len(seeds)
    numbers: dict[str, Any] = {}
    lines: list[Line] = []
    for name, prepare in (("post_ln", None), ("admin", admin_profile)):
        found = train_runs(classifier(name, "layer", DEEP), DEEP, rates, seeds, prepare)
        numbers[f"{name}_share_trained"] = float((found.train_accuracy >= CHANCE).mean())
        numbers[f"{name}_accuracy"] = found.train_accuracy.tolist()
        lines += _panel(found, seeds, [name]).lines
    return Measured(numbers, (Panel("step", "training loss (nats), mean of seeds", tuple(lines)),))


_SETUP = (
    "digits by rows, 12 layers, width 32, 4 heads, Adam, batch 32, 300 steps, constant rate after "
    "warm-up; a run under 30 % training accuracy counts as at chance"
)
_READING = "2.3 is the loss of guessing: a line that stays there has not trained."
CLAIMS = (
    Claim(
        "warmup_post_ln",
        "Post-LN without warm-up stays at chance at the higher rate.",
        f"{PAPER}, section 3.2 and figure 2",
        (Bound(f"share_at_chance_{_name(SCHEDULES[2])}", low=0.51),),
        measure_post,
        f"{_SETUP}; rates 1e-3 and 3e-3, warm-up 0 and 200",
        seeds=5,
        seconds=60,
        reading=_READING,
        why="ours (most seeds), fixed before measuring",
    ),
    Claim(
        "warmup_helps_post_ln",
        "Warm-up lets Post-LN train at that rate.",
        f"{PAPER}, section 3.2 and figure 2",
        (
            Bound(f"share_at_chance_{_name(SCHEDULES[3])}", high=0.49),
            Bound("gain_by_warmup", low=0.3),
        ),
        measure_post,
        f"{_SETUP}; rate 3e-3, warm-up 0 and 200 (the runs of warmup_post_ln)",
        seeds=5,
        seconds=2,
        reading=_READING,
        why="ours, after a pilot of 2 seeds and 150 steps",
    ),
    Claim(
        "warmup_pre_ln",
        "Pre-LN trains as well without warm-up.",
        f"{PAPER}, section 4",
        (Bound("least_accuracy_without", low=0.8), Bound("lost_without_warmup", high=0.03)),
        measure_pre,
        f"{_SETUP}; rates 1e-3 and 3e-3, warm-up 0 and 200",
        seeds=5,
        seconds=60,
        reading="Every line falls, those without warm-up first.",
        why="ours, after a pilot of 2 seeds and 150 steps",
    ),
    Claim(
        "t_fixup_no_warmup",
        "T-Fixup, without norms, trains without warm-up where Post-LN does not.",
        "Huang et al. 2020 (ICML 2020, T-Fixup; after arXiv 1901.09321), abstract",
        (Bound("t_fixup_share_trained", low=0.8), Bound("post_ln_share_trained", high=0.4)),
        measure_t_fixup,
        f"{_SETUP}; rate 3e-3, no warm-up, the input projection times (9N)^(-1/4), as its embeddings "
        "are (Post-LN: the runs of warmup_post_ln)",
        seeds=5,
        seconds=15,
        reading=_READING,
        why="ours, fixed before measuring; the input projection follows T-Fixup's rule of "
        "embeddings since a first run without it had failed",
    ),
    Claim(
        "admin_depth",
        "Admin trains a deep Post-LN stack where plain Post-LN does not.",
        "Liu et al. 2020 (arXiv 2004.08249), abstract",
        (Bound("admin_share_trained", low=0.8), Bound("post_ln_share_trained", high=0.4)),
        measure_admin,
        "digits by rows, 24 layers, width 32, Adam 3e-3 after 100 steps of warm-up, 300 steps, batch "
        "32; a run under 30 % training accuracy counts as not trained",
        seeds=5,
        seconds=70,
        reading=_READING,
        why="ours, fixed before measuring",
    ),
)
