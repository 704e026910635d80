"""All measurements of ``resnorm bench`` in the order of their worth, a row at a time."""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any

import jax

from resnorm_jax.bench import torch_peer
from resnorm_jax.bench.accuracy import accuracy
from resnorm_jax.bench.cases import WIDE, NormCase
from resnorm_jax.bench.copy_speed import copy_speed
from resnorm_jax.bench.curves import curves_row
from resnorm_jax.bench.determinism import determinism_row
from resnorm_jax.bench.memory import compile_times, norm_cost, step_cost
from resnorm_jax.bench.norm_table import norm_row
from resnorm_jax.bench.results import Results
from resnorm_jax.bench.settings import Settings
from resnorm_jax.bench.step_table import step_row
from resnorm_jax.bench.tuning import tuned_row
from resnorm_jax.errors import UserError

Note = Callable[[str], None]
SECTIONS = ("norm", "step", "determinism", "accuracy", "curves", "memory", "tune")
BY_DEFAULT = SECTIONS[:-1]  # tiles are measured only when asked for


@dataclass(frozen=True)
class Task:
    """One row to measure, or, without a key, a whole section."""

    section: str
    key: str | None
    about: str
    run: Callable[[], Any]


def tasks(settings: Settings, copy: Callable[[], float]) -> Iterator[Task]:
    """Yield all there is to measure, in order.

    Args:
      settings: what, and how long.
      copy: returns bytes a second of the device's copy, measured in this run.
    """
    cpu = jax.default_backend() == "cpu"
    models = [m for m in settings.models if settings.everything or not (m.accelerator and cpu)]
    norms = [
        Task("norm", case.key, f"timing {case.key}", partial(_norm, case, settings, copy))
        for case in settings.norms
    ]
    yield from norms[: settings.first]
    for number, model in enumerate(models):
        measure = partial(step_row, model, settings.step_budget, settings.everything)
        yield Task("step", model.key, f"timing the training step {model.key}", measure)
        if number == 0:
            twice = partial(determinism_row, model, settings.updates)
            yield Task("determinism", model.key, f"training {model.key} twice", twice)
    yield Task("accuracy", None, "comparing with float64", accuracy)
    if settings.curve:
        yield _curves(settings)
    yield from norms[settings.first :]
    yield Task("memory", None, "reading compiled programs", partial(_memory, settings))
    for dtype, shape in product(dict.fromkeys(case.dtype for case in settings.norms), WIDE):
        key = f"{shape[0]}x{shape[1]} {dtype}"
        yield Task("tune", key, f"measuring tiles, {key}", partial(tuned_row, shape, dtype))


def measure_all(
    settings: Settings,
    results: Results,
    sections: Collection[str],
    note: Note,
    until: float = float("inf"),
) -> list[str]:
    """Measure what is not there yet; each row is saved at once.

    Args:
      settings: what is measured.
      results: the file.
      sections: which to measure.
      note: told what is being measured.
      until: begin nothing after this value of `time.monotonic`.

    Returns:
      What was left out for want of time.

    Raises:
      Exception: what went wrong in a row, after all others were measured.
    """

    @cache
    def copy() -> float:
        note("timing copies")
        found = copy_speed(settings.copied, settings.norm_budget)
        results.add("copy", None, {"bytes": settings.copied, "bytes_per_second": found})
        return max(found.values())

    wanted = [
        task
        for task in tasks(settings, copy)
        if task.section in sections and not results.holds(task.section, task.key)
    ]
    late, errors = [], []
    for task in wanted:
        if time.monotonic() > until:
            late.append(task.about)
            continue
        note(task.about)
        try:
            results.add(task.section, task.key, task.run())
        except UserError:
            raise
        except Exception as error:  # the others are measured first
            error.add_note(f"while {task.about}")
            errors.append(error)
        torch_peer.release()
    if errors:
        raise errors[0]
    return late


def _norm(case: NormCase, settings: Settings, copy: Callable[[], float]) -> dict[str, Any]:
    return norm_row(case, settings.norm_budget, copy(), settings.everything)


def _curves(settings: Settings) -> Task:
    half = replace(next(m for m in settings.models if not m.accelerator), dtype="bfloat16")
    losses = partial(curves_row, half, settings.curve)
    return Task("curves", half.key, f"training {half.key} in three ways", losses)


def _memory(settings: Settings) -> dict[str, Any]:
    model = next(m for m in settings.models if not m.accelerator)
    size = model.size
    norms = [
        norm_cost(kind, shape, model.dtype)
        for kind in ("layer", "rms")
        for shape in settings.cost_shapes
    ]
    times = compile_times(size, model.dtype, settings.depths, settings.repeats)
    return {"norms": norms, "step": step_cost(size, model.dtype), "compile": times}
