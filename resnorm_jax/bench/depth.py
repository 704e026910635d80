"""What depth costs: compile time, step time and memory of a training step at 10 to 1000 layers."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from resnorm_jax.arrangements import DEFAULT, rows
from resnorm_jax.bench.memory import no_compilation_cache, program_cost
from resnorm_jax.bench.model import Size, optimizer, our_model, random_batch
from resnorm_jax.bench.step_speed import our_state
from resnorm_jax.training.losses import classification_sums
from resnorm_jax.training.step import StepOptions, train_step

Note = Callable[[str], None]


SIZE = Size(1, 64, 4, 256, 8, 32, 16)


@dataclass(frozen=True)
class Depths:
    """What is measured.

    Attributes:
      size: of the model; its depth is not read.
      depths: numbers of layers.
      arrangements: by name; those whose sources train a thousand layers if not given.
      steps: updates that are timed after the first.
      repeats: how often each program is compiled; the shortest time counts.
    """

    size: Size = SIZE
    depths: tuple[int, ...] = (10, 100, 1000)
    arrangements: tuple[str, ...] = tuple(row.name for row in rows() if row.deep)
    steps: int = 2
    repeats: int = 2


QUICK = Depths(Size(1, 8, 2, 16, 4, 8, 3), (2, 4), (DEFAULT,), 1, 1)


def policies(depth: int) -> dict[str, dict[str, Any]]:
    """Return name to encoder options of each way to keep or recompute."""
    every = min(
        (n for n in range(1, depth + 1) if depth % n == 0), key=lambda n: abs(n * n - depth)
    )
    return {
        "none": {"remat": "none"},
        "dots": {"remat": "dots"},
        "full": {"remat": "full"},
        f"full, every {every}": {"remat": "full", "remat_every": every},
    }


def depth_costs(settings: Depths, note: Note) -> Iterator[dict[str, Any]]:
    """Yield a row for each arrangement, policy and depth.

    ``compile`` is tracing and compiling in seconds, the shortest of some; ``step`` the median seconds
    of an update; ``activation_bytes`` what the compiled gradient needs beside parameters and
    gradients; ``ratio`` the compile time over that at the least depth.
    """
    batch = random_batch(settings.size)
    for arrangement in settings.arrangements:
        least: dict[str, float] = {}
        for depth in settings.depths:
            size = replace(settings.size, depth=depth)
            for policy, options in policies(depth).items():
                note(f"{arrangement}, {depth} layers, remat {policy}")
                row = _measure(size, {**options, "arrangement": arrangement}, batch, settings)
                kind = policy.partition(" ")[0] + " every" * ("every" in policy)
                least.setdefault(kind, row["compile"])
                yield {
                    "arrangement": arrangement,
                    "depth": depth,
                    "remat": policy,
                    "ratio": row["compile"] / least[kind],
                    **row,
                    "size": asdict(size),
                }


def _measure(size: Size, options: dict[str, Any], batch: Any, settings: Depths) -> dict[str, Any]:
    model = our_model(size, **options)

    def first_state() -> Any:
        variables = model.init(jax.random.key(0), batch["x"][:1], batch["mask"][:1])
        return our_state(variables["params"])

    shapes = jax.eval_shape(first_state)
    seconds = []
    with no_compilation_cache():
        for _ in range(settings.repeats):
            step = _new_step(model)
            begin = time.perf_counter()
            compiled = jax.jit(step, donate_argnums=0).lower(shapes, batch).compile()
            seconds.append(time.perf_counter() - begin)
    times, finite = _run(compiled, jax.jit(first_state)(), batch, 1 + settings.steps)
    gradient = jax.jit(jax.grad(partial(_loss, model))).lower(shapes.params, batch).compile()
    return {
        "compile": min(seconds),
        "step": statistics.median(times[1:]),
        "activation_bytes": program_cost(gradient)["temporary_bytes"],
        "finite": finite,
    }


def _run(compiled: Any, state: Any, batch: Any, steps: int) -> tuple[list[float], bool]:
    times, losses = [], []
    for _ in range(steps):
        begin = time.perf_counter()
        state, sums = jax.block_until_ready(compiled(state, batch))
        times.append(time.perf_counter() - begin)
        losses.append(float(sums["loss"]))
    return times, bool(np.isfinite(losses).all())


def _loss(model: Any, params: Any, batch: Any) -> jax.Array:
    logits = model.apply({"params": params}, batch["x"], batch["mask"])
    return classification_sums(logits, batch["y"], batch["weight"], 0.0)["loss"]


def _new_step(model: Any) -> Callable[..., Any]:
    """A function that JAX has not seen: the step's compiled program is not found again."""
    options = StepOptions(model.apply, optimizer())
    return lambda state, batch: train_step(state, batch, options)
