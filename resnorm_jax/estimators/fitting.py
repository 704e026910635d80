"""Rows in memory to a model that predicts and travels as bytes: by the trainer's own loop."""

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from rich.console import Console

from resnorm_jax.build import build_model, check_attention, check_names, told_lengths
from resnorm_jax.config import Config, OptimizerConfig, TrainConfig, from_dict
from resnorm_jax.data import Dataset, Examples, describe
from resnorm_jax.data.inputs import given_inputs
from resnorm_jax.data.rows import Rows
from resnorm_jax.errors import UserError
from resnorm_jax.estimators import missing
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.training.determinism import determinism
from resnorm_jax.training.devices import DataParallel, choose_devices
from resnorm_jax.training.evaluation import predict
from resnorm_jax.training.identity import plain
from resnorm_jax.training.initial import first_variables
from resnorm_jax.training.loop import Run, train_seed
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.recipe import (
    class_weights,
    step_options,
    with_low_rank,
    without_low_rank,
)
from resnorm_jax.training.run_data import held_out, padded_lengths, scaled, total_steps
from resnorm_jax.training.step import StepOptions, TrainState, create_state

ABOUT = "resnorm_jax"  # of a file's metadata
KEPT = 16  # models and recipes whose programs stay compiled


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model.

    Attributes:
      config: of the run that trained it.
      meta: what prepares inputs; see `resnorm_jax.data.describe`.
      variables: the model's, as NumPy arrays: ``params``, and what it keeps beside them.
    """

    config: Config
    meta: dict[str, Any]
    variables: dict[str, Any]

    def log_probs(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Return log-probabilities ``[N, K]`` float32 of rows ``[T, C]``.

        All rows are padded to the longest training row, so that what is said of one does not depend on
        its companions; those that are longer, to the longest of them.
        """
        examples = given_inputs(rows, self.meta)
        parallel = _predictor(build_model(self.config, self.meta), self.config)
        size, longest = self.config.train.batch_size, self.meta["max_length"]
        return predict(parallel, self.variables, examples, size, (longest,))

    def to_bytes(self) -> bytes:
        """Return a safetensors file: the arrays, and config and data's description as JSON."""
        about = json.dumps({"config": self.config.to_dict(), "meta": self.meta})
        # One entry: safetensors has no order of several, and equal models are to have equal bytes.
        return _safetensors().save(flat(self.variables), {ABOUT: about})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Fitted":
        """Return what `to_bytes` was made of."""
        size = int.from_bytes(content[:8], "little")
        about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][ABOUT])
        variables = unflatten_dict(_safetensors().load(content), sep="/")
        return cls(from_dict(about["config"]), about["meta"], variables)


def fit(config: Config, rows: Sequence[np.ndarray], labels: np.ndarray, classes: int) -> Fitted:
    """Train a classifier of series, as a run of this config does.

    Args:
      config: of the run; its ``data`` are not read, nor is what concerns files.
      rows: ``[T, C]`` each, of any lengths.
      labels: ``[N]``, indices of classes.
      classes: how many there are.

    Raises:
      UserError: for a mistake in the config or the rows.
      DivergedError: a loss is not finite.
    """
    check_names(config.model)
    dataset = scaled(held_out(_dataset(rows, labels, classes), config), config)
    meta = plain(describe(dataset))
    check_attention(config, meta)
    model, buckets = build_model(config, meta), padded_lengths(config, dataset)
    steps = total_steps(config, dataset, buckets)
    weights = class_weights(config.train, dataset.train.y, classes)
    recipe = _recipe(model, config.optimizer, config.train, config.devices, steps, weights)
    variables = first_variables(config, model, dataset, buckets, config.seed)
    variables = with_low_rank(config.optimizer, variables, config.seed)
    state = recipe.first_state(np.uint32(config.seed), variables)
    # The loop leaves a log and a checkpoint, as that of every run does.
    with tempfile.TemporaryDirectory(prefix="resnorm_jax-") as folder:
        place, quiet = Path(folder), Console(file=io.StringIO())
        log = MetricsLog(place / "metrics.jsonl")
        run = Run(
            config.train, dataset, recipe.parallel, recipe.schedule, buckets, place, log, quiet
        )
        outcome = train_seed(run, config.seed, state, steps)
    variables = without_low_rank(config.optimizer, outcome.variables)
    return Fitted(config, meta, jax.tree.map(np.array, dict(variables)))


def flat(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return arrays by name: ``params/encoder/...``."""
    leaves = flatten_dict(variables, sep="/")
    return {name: np.asarray(a, order="C") for name, a in leaves.items()}


def _dataset(rows: Sequence[np.ndarray], labels: np.ndarray, classes: int) -> Dataset:
    with np.errstate(over="ignore"):
        x, lengths = Rows(rows, [None] * len(rows), [""] * len(rows)).padded("features")
    if not (finite := np.isfinite(x).all(axis=(1, 2))).all():
        raise UserError(
            f"X[{finite.argmin()}]: a value over 3e38, the limit of float32; rescale it"
        )
    train = Examples(x, lengths, labels.astype(np.int32))
    names = tuple(str(index) for index in range(classes))
    return Dataset("X", "features", train, train.take(np.zeros(0, np.int64)), names)


class _Recipe:
    """What fits of equal shapes and settings share: the steps, compiled when first used."""

    def __init__(self, model: Any, optimizer: OptimizerConfig, train: TrainConfig, devices: int,
                 steps: int, weights: tuple[float, ...] | None) -> None:  # fmt: skip
        made, self.schedule = make_optimizer(optimizer, steps)
        options = step_options(model, optimizer, train, made, weights)
        self.parallel = _parallel(options, train, devices)

        @jax.jit
        def first_state(seed: jax.Array, variables: Any) -> TrainState:
            return create_state(variables, made, seed, train.ema, options.names)

        self.first_state = first_state


_recipe = lru_cache(maxsize=KEPT)(_Recipe)


def _parallel(options: StepOptions, train: TrainConfig, devices: int) -> DataParallel:
    chosen = choose_devices(devices, train.batch_size, train.accumulate)
    same = determinism(train.deterministic, chosen[0].platform)
    return DataParallel(options, chosen, same.options)


def _predictor(model: Any, config: Config) -> DataParallel:
    return _predicting(model, config.train, config.devices)


@lru_cache(maxsize=KEPT)
def _predicting(model: Any, train: TrainConfig, devices: int) -> DataParallel:
    options = StepOptions(model.apply, optax.identity(), by_length=told_lengths(model))
    return _parallel(options, train, devices)


def _safetensors() -> Any:
    try:
        from safetensors import numpy
    except ImportError:
        raise missing("TransformerClassifier", "safetensors", "estimators") from None
    return numpy
