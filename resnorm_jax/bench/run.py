"""All measurements of ``resnorm bench``, in order, and the document that holds them."""

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

from resnorm_jax.bench.accuracy import accuracy
from resnorm_jax.bench.memory import compile_times, norm_cost, step_cost
from resnorm_jax.bench.model import Size
from resnorm_jax.bench.norm_speed import SHAPES, norm_speed
from resnorm_jax.bench.step_speed import step_speed
from resnorm_jax.bench.timing import Budget
from resnorm_jax.reporting.environment import environment

SECTIONS = ("norm", "step", "accuracy", "memory")
SIZE = Size()
NORM_BUDGET = Budget(4.0, at_least=10, primers=1, calls=3)
STEP_BUDGET = Budget(60.0, at_least=7, at_most=100, warmup=2)
Note = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is measured, and how long.

    Attributes:
      dtype: dtype of the norms' input and of the model's computation.
      shapes: of the norms' inputs.
      norm_budget: for each norm at each shape.
      size: of the model.
      step_budget: for the training step.
      depths: of the models that are compiled.
      compile_repeats: how often each is compiled.
    """

    dtype: str = "float32"
    shapes: tuple[tuple[int, ...], ...] = SHAPES
    norm_budget: Budget = NORM_BUDGET
    size: Size = SIZE
    step_budget: Budget = STEP_BUDGET
    depths: tuple[int, ...] = (4, 64)
    compile_repeats: int = 3


def quick_settings(dtype: str = "float32") -> Settings:
    """Return settings that show that everything runs; their times mean nothing."""
    return Settings(
        dtype,
        shapes=((2, 4, 16),),
        norm_budget=Budget(0.0, at_least=3, warmup=1, primers=1, calls=2),
        size=Size(depth=2, width=16, heads=2, mlp_width=32, batch=4, length=8, channels=3),
        step_budget=Budget(0.0, at_least=3, warmup=1),
        depths=(1, 4),
        compile_repeats=1,
    )


def measure(settings: Settings, section: str, note: Note) -> Any:
    """Return one section of the results; ``note`` is told what is being measured."""
    return _MEASUREMENTS[section](settings, note)


def measure_all(
    settings: Settings, sections: Collection[str], note: Note, done: Callable[[str, Any], None]
) -> dict[str, Any]:
    """Measure the sections; return the whole document. ``done`` gets each as soon as it is there."""
    document = {**environment(), "settings": asdict(settings)}
    for section in SECTIONS:
        if section in sections:
            document[section] = measure(settings, section, note)
            done(section, document[section])
    return document


def _norm(settings: Settings, note: Note) -> list[dict[str, Any]]:
    rows = []
    for kind in ("layer", "rms"):
        for shape in settings.shapes:
            note(f"timing {kind} norm {'x'.join(map(str, shape))}")
            rows.append(norm_speed(kind, shape, settings.dtype, settings.norm_budget))
    return rows


def _step(settings: Settings, note: Note) -> dict[str, Any]:
    note(f"timing the training step, {settings.step_budget.seconds:.0f} s or more")
    return step_speed(settings.size, settings.dtype, settings.step_budget)


def _accuracy(settings: Settings, note: Note) -> list[dict[str, Any]]:
    note("comparing with float64")
    return accuracy()


def _memory(settings: Settings, note: Note) -> dict[str, Any]:
    note("reading the compiled norms")
    norms = [
        norm_cost(kind, shape, settings.dtype)
        for kind in ("layer", "rms")
        for shape in settings.shapes
    ]
    note("reading the compiled training steps")
    step = step_cost(settings.size, settings.dtype)
    note("compiling at depths " + ", ".join(map(str, settings.depths)))
    times = compile_times(settings.size, settings.dtype, settings.depths, settings.compile_repeats)
    return {"norms": norms, "step": step, "compile": times}


_MEASUREMENTS: dict[str, Callable[[Settings, Note], Any]] = {
    "norm": _norm,
    "step": _step,
    "accuracy": _accuracy,
    "memory": _memory,
}
