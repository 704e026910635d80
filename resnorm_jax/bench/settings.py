"""What ``resnorm bench`` measures, and how long: on an accelerator, on a CPU, and to try it."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import jax

from resnorm_jax.bench.cases import (
    FIRST,
    MODELS,
    Model,
    NormCase,
    norm_cases,
    quick_models,
    quick_norm_cases,
)
from resnorm_jax.bench.norm_speed import SHAPES
from resnorm_jax.bench.timing import Budget

NORM_BUDGET = Budget(0.7, at_least=5, at_most=25, warmup=1, primers=1, calls=3)
STEP_BUDGET = Budget(35.0, at_least=3, at_most=15, warmup=0)  # each was run once before
# An accelerator is kept busy: its time counts, not that of Python.
QUEUED_NORM = Budget(0.2, at_least=5, at_most=9, warmup=2, primers=1, calls=20, queue=True)
QUEUED_STEP = Budget(3.0, at_least=5, at_most=20, warmup=2, calls=5, queue=True)


@dataclass(frozen=True)
class Settings:
    """What is measured, and how long.

    Attributes:
      norms: cases, the most telling first.
      first: how many of them come before everything else.
      models: whose training step is measured.
      copied: bytes of the array that is copied.
      norm_budget: for each direction of a norm.
      step_budget: for a training step.
      cost_shapes: of the norms whose compiled programs are read.
      depths: of the models that are compiled.
      repeats: how often each of those is compiled.
      updates: of the two runs whose bits are compared.
      curve: updates of the runs whose losses are compared; 0 for none.
      everything: whether what takes long on this device is measured too.
    """

    norms: tuple[NormCase, ...]
    first: int = FIRST
    models: tuple[Model, ...] = MODELS
    copied: int = 2**28
    norm_budget: Budget = NORM_BUDGET
    step_budget: Budget = STEP_BUDGET
    cost_shapes: tuple[tuple[int, ...], ...] = SHAPES
    depths: tuple[int, ...] = (4, 64)
    repeats: int = 3
    updates: int = 3
    curve: int = 50
    everything: bool = False


def settings_here(dtype: str | None, everything: bool, quick: bool) -> Settings:
    """Return what to measure on this device.

    Args:
      dtype: measure only norms of this dtype, and compute the models in it.
      everything: leave nothing out for its time.
      quick: tiny sizes, which show that all runs.
    """
    fast = jax.default_backend() != "cpu"
    settings = Settings(tuple(norm_cases(fast)), everything=everything)
    if fast:
        settings = replace(settings, copied=2**30, norm_budget=QUEUED_NORM, step_budget=QUEUED_STEP)
    elif not everything:
        settings = replace(settings, curve=0)  # half precision takes minutes on a CPU
    if quick:
        short = Budget(0.0, at_least=3, warmup=1, primers=1, calls=2, queue=fast)
        settings = Settings(
            tuple(quick_norm_cases()), models=quick_models(), copied=2**20, norm_budget=short,
            step_budget=short, cost_shapes=((2, 4, 16),), depths=(1, 2), repeats=1,
            curve=3,
            everything=everything,
        )  # fmt: skip
    if dtype is not None:
        norms = tuple(case for case in settings.norms if case.dtype == dtype)
        models = tuple(replace(model, dtype=dtype) for model in settings.models)
        settings = replace(settings, norms=norms, models=models)
    return settings


def about(settings: Settings) -> dict[str, Any]:
    """Return the settings as a results file holds them."""
    return asdict(replace(settings, norms=(), models=()))
