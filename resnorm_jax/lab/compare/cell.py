"""All seeds and learning rates of one arrangement at one depth: one compiled program.

A run of the grid is the run that `resnorm_jax.training.experiment.run_experiment` does on one device
with the same config and seed: the same initial values, batches, dropout and learning rates.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.build import DEVICE_AXIS, build_model, check_names
from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, TrainBatches, describe, length_buckets
from resnorm_jax.data.pipeline import eval_batches
from resnorm_jax.lab.trainer import over, training
from resnorm_jax.training.initial import first_variables
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.run_data import scored_rows
from resnorm_jax.training.step import (
    Batch,
    StepOptions,
    create_state,
    predict_step,
    scored_variables,
)

CHUNK = 25  # steps between two looks at the progress
Told = Callable[[int, int], None]


@dataclass(frozen=True)
class CellRuns:
    """What came of the S x R runs of one cell.

    Attributes:
      losses: ``[S, R, steps]``, mean training loss of each step's batch.
      log_probs: ``[S, R, rows, K]`` of the scored rows.
      seconds: of all runs together, without compilation.
      compile_seconds: until the first chunk of steps and the scoring were compiled.
    """

    losses: np.ndarray
    log_probs: np.ndarray
    seconds: float
    compile_seconds: float


def train_runs(
    config: Config,
    dataset: Dataset,
    seeds: Sequence[int],
    rates: Sequence[float],
    steps: int,
    told: Told = lambda done, examples: None,
) -> CellRuns:
    """Train every seed at every peak learning rate.

    Args:
      config: of the run; its seed and its learning rate are not read, and neither is what concerns
        files, devices and selection: the last parameters are scored.
      dataset: as `resnorm_jax.training.run_data.prepare_data` returns it.
      seeds: of initial values, batches and dropout.
      rates: peak learning rates.
      steps: updates of each run.
      told: called with the steps done of each run, and the examples seen since the call before.

    Raises:
      UserError: for a name in the config that no table has.
    """
    check_names(config.model)
    model = build_model(config, describe(dataset))
    buckets = length_buckets(dataset.train.lengths, 1)
    programs = _Programs(config, model, steps)
    state = _first_states(config, model, dataset, buckets, seeds, len(rates), programs)
    batches = [
        TrainBatches(dataset.train, config.train.batch_size, buckets, seed) for seed in seeds
    ]
    peaks = jnp.broadcast_to(jnp.asarray(rates, jnp.float32), (len(seeds), len(rates)))
    began, losses = time.perf_counter(), []
    chunk = max(n for n in range(1, CHUNK + 1) if steps % n == 0)
    train = _compiled(programs.train, state, peaks, _stacked(batches, 0, chunk))
    held = scored_rows(dataset, config.train.score)
    scored = eval_batches(held, config.train.batch_size, buckets)
    compile_seconds = time.perf_counter() - began
    for start in range(0, steps, chunk):
        state, found = train(state, peaks, _stacked(batches, start, chunk))
        losses.append(np.asarray(found))
        told(start + chunk, chunk * len(seeds) * len(rates) * config.train.batch_size)
    log_probs = _predict(programs, state, scored)
    seconds = time.perf_counter() - began - compile_seconds
    return CellRuns(np.concatenate(losses, axis=-1), log_probs, seconds, compile_seconds)


class _Programs:
    """The pure functions of one cell: over seeds, then over learning rates, then over steps."""

    def __init__(self, config: Config, model: Any, steps: int) -> None:
        self._config, self._model, self._steps = config, model, steps
        self.predict = jax.jit(
            lambda variables, batch: over(
                lambda v: predict_step(v, batch, model.apply), variables, together=_room()
            )
        )

    def options(self, peak: Any) -> StepOptions:
        """Return what a step is made of, at a peak learning rate that may be traced."""
        train = self._config.train
        optimizer, _ = make_optimizer(
            replace(self._config.optimizer, learning_rate=peak), self._steps
        )
        return StepOptions(
            self._model.apply, optimizer, train.label_smoothing, train.accumulate, train.ema
        )

    def train(self, state: Any, peaks: jax.Array, batches: Batch) -> tuple[Any, jax.Array]:
        """Do a chunk of steps of all runs: states ``[S, R, ...]``, batches ``[S, C, B, ...]``."""

        def run(state: Any, peak: jax.Array, chunk: Batch) -> tuple[Any, jax.Array]:
            return jax.lax.scan(training(self.options(peak), DEVICE_AXIS), state, chunk)

        def seed(states: Any, rates: jax.Array, chunk: Batch) -> tuple[Any, jax.Array]:
            return over(lambda one, rate: run(one, rate, chunk), states, rates, together=_room())

        return over(seed, state, peaks, batches, together=False)


def _room() -> bool:
    """Whether runs go beside each other: not where one fills a core."""
    return jax.default_backend() != "cpu"


def _first_states(config, model, dataset, buckets, seeds, count: int, programs: _Programs) -> Any:
    """Return the states before the first update, ``[S, R, ...]``."""
    options = programs.options(1.0)
    states = []
    for seed in seeds:
        variables = first_variables(config, model, dataset, buckets, seed)
        states.append(create_state(variables, options.optimizer, seed, config.train.ema))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    return jax.tree.map(
        lambda a: jnp.broadcast_to(a[:, None], (a.shape[0], count, *a.shape[1:])), stacked
    )


def _stacked(batches: Sequence[TrainBatches], start: int, count: int) -> Any:
    """Return the batches of some steps, ``[S, C, B, ...]``."""
    each = [[b.batch_at(step) for step in range(start, start + count)] for b in batches]
    names = each[0][0]
    return {name: np.stack([[b[name] for b in row] for row in each]) for name in names}


def _compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Compile a function for some arguments; it then takes others of their shapes."""
    return jax.jit(function).lower(*arguments).compile()


def _predict(programs: _Programs, state: Any, batches: Any) -> np.ndarray:
    """Return log-probabilities ``[S, R, rows, K]``, rows in their order."""
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), state)
    variables = jax.vmap(scored_variables)(flat)
    runs, out = jax.tree.leaves(state)[0].shape[:2], []
    order = []
    for batch in batches:
        inputs = {name: batch[name] for name in ("x", "mask") if name in batch}
        found, real = np.asarray(programs.predict(variables, inputs)), batch["rows"] >= 0
        out.append(found[:, real])
        order.append(batch["rows"][real])
    joined, places = np.concatenate(out, axis=1), np.concatenate(order)
    return joined[:, np.argsort(places)].reshape(*runs, len(places), -1)
