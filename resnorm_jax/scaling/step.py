"""The training step of a config for any number of rows, made without a run directory."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.build import build_model, check_attention, check_names
from resnorm_jax.config import Config
from resnorm_jax.data import TrainBatches
from resnorm_jax.interop.init_from import check_fits
from resnorm_jax.training.determinism import determinism
from resnorm_jax.training.devices import DataParallel
from resnorm_jax.training.identity import described
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.recipe import class_weights, step_options, with_low_rank
from resnorm_jax.training.run_data import padded_lengths, prepare_data, total_steps
from resnorm_jax.training.step import StepOptions, TrainState, create_state

Shapes = Any  # of a state: a TrainState of jax.ShapeDtypeStruct


@dataclass(frozen=True)
class Step:
    """What a config's training step is made of.

    Attributes:
      config: of the run.
      options: of the step.
      state: shapes of the state.
      first: makes the state itself.
      length: of the longest padded rows, or None for images; all figures are for it.
    """

    config: Config
    options: StepOptions
    state: Shapes
    first: Callable[[], TrainState]
    length: int | None
    _some: Mapping[str, np.ndarray]

    def batch(self, rows: int) -> dict[str, np.ndarray]:
        """Return a global batch of the longest rows, repeated if there are not so many."""
        return {k: np.resize(v, (rows, *v.shape[1:])) for k, v in self._some.items()}

    def over(self, devices: Sequence[jax.Device]) -> DataParallel:
        """Return the step over some devices, with the run's options of the compiler."""
        same = determinism(self.config.train.deterministic, devices[0].platform)
        return DataParallel(self.options, devices, same.options)

    def seconds(self, rows: int, budget: float = 10.0) -> float:
        """Return the median time of a step of one device with this many rows, measured here.

        Args:
          rows: of the device.
          budget: begin no step after this many seconds; at least one is measured.
        """
        parallel = self.over(jax.local_devices()[:1])
        batch, state = self.batch(rows), parallel.replicate(self.first())
        times: list[float] = []
        began = time.perf_counter()
        for number in range(9):
            start = time.perf_counter()
            state, _ = jax.block_until_ready(parallel.train(state, batch))
            if number:  # the first one compiles
                times.append(time.perf_counter() - start)
            else:
                began = time.perf_counter()
            if times and time.perf_counter() - began > budget:
                break
        return median(times)


def step_of(config: Config) -> Step:
    """Return the step of a config, with the classification's loss; its data are read.

    Raises:
      UserError: as `resnorm train` does, for a mistake in the config or the data.
    """
    check_names(config.model)
    dataset = prepare_data(config)
    meta = described(dataset, None)
    check_attention(config, meta)
    check_fits(config, meta)
    model, buckets = build_model(config, meta), padded_lengths(config, dataset)
    optimizer, _ = make_optimizer(config.optimizer, total_steps(config, dataset, buckets))
    weights = class_weights(config.train, dataset.train.y, len(dataset.classes))
    options = step_options(model, config.optimizer, config.train, optimizer, weights)

    def first() -> TrainState:
        variables = init_variables(model, dataset, buckets, config.seed)
        made = with_low_rank(config.optimizer, variables, config.seed)
        return create_state(made, optimizer, jnp.uint32(config.seed), config.train.ema,
                            options.names)  # fmt: skip

    size = min(config.train.batch_size, len(dataset.train))
    longest = dataset.train.take(np.argsort(dataset.train.lengths)[-size:])
    some = TrainBatches(longest, size, buckets, config.seed).batch_at(0)
    length = None if dataset.kind == "images" else some["x"].shape[1]
    return Step(config, options, jax.eval_shape(first), first, length, some)
