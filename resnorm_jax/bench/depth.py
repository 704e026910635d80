"""What depth costs: compile time, step time and memory of a training step at 10 to 1000 layers."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from resnorm_jax.arrangements import DEFAULT, rows
from resnorm_jax.bench.memory import no_compilation_cache, program_cost
from resnorm_jax.bench.model import Size, our_model, random_batch
from resnorm_jax.bench.step_speed import our_state
from resnorm_jax.bench.ways import step_options
from resnorm_jax.training.losses import classification_sums
from resnorm_jax.training.step import train_step

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
    repeats: int = 3


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

    ``compile`` is tracing and compiling in seconds, the shortest of some, all depths in turn;
    ``step`` the median seconds of an update; ``activation_bytes`` what the compiled gradient needs
    beside parameters and gradients; ``ratio`` the compile time over that at the least depth.
    """
    batch = random_batch(settings.size)
    for arrangement in settings.arrangements:
        for number, policy in enumerate(policies(settings.depths[0])):
            kinds = [list(policies(depth).items())[number] for depth in settings.depths]
            models = [
                our_model(replace(settings.size, depth=depth), arrangement=arrangement, **options)
                for depth, (_, options) in zip(settings.depths, kinds, strict=True)
            ]
            note(f"{arrangement}, remat {policy}: compiling at {settings.depths} layers")
            seconds, programs = _compile(models, batch, settings.repeats)
            for depth, (name, _), model in zip(settings.depths, kinds, models, strict=True):
                note(f"{arrangement}, remat {name}: {depth} layers")
                times, finite = _run(programs[model], model, batch, 1 + settings.steps)
                yield {
                    "arrangement": arrangement,
                    "depth": depth,
                    "remat": name,
                    "compile": seconds[model],
                    "ratio": seconds[model] / seconds[models[0]],
                    "step": statistics.median(times[1:]),
                    "activation_bytes": _activation_bytes(model, batch),
                    "finite": finite,
                    "size": asdict(replace(settings.size, depth=depth)),
                }


def _compile(models: Sequence[Any], batch: Any, repeats: int) -> tuple[dict, dict]:
    """Compile each model's step several times in turn; return the least seconds, and a program."""
    best, programs = dict.fromkeys(models, float("inf")), {}
    with no_compilation_cache():
        for _ in range(repeats):
            for model in models:
                step, shapes = _new_step(model), jax.eval_shape(partial(_first_state, model, batch))
                begin = time.perf_counter()
                programs[model] = jax.jit(step, donate_argnums=0).lower(shapes, batch).compile()
                best[model] = min(best[model], time.perf_counter() - begin)
    return best, programs


def _first_state(model: Any, batch: Any) -> Any:
    variables = model.init(jax.random.key(0), batch["x"][:1], batch["mask"][:1])
    return our_state(variables["params"])


def _activation_bytes(model: Any, batch: Any) -> float | None:
    shapes = jax.eval_shape(partial(_first_state, model, batch)).params
    gradient = jax.jit(jax.grad(partial(_loss, model))).lower(shapes, batch).compile()
    return program_cost(gradient)["temporary_bytes"]


def _run(compiled: Any, model: Any, batch: Any, steps: int) -> tuple[list[float], bool]:
    state = jax.jit(partial(_first_state, model))(batch)
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
    options = step_options(model.apply)
    return lambda state, batch: train_step(state, batch, options)
