"""From a config, or a run directory, to the signals of some arrangements on a real batch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optax

from resnorm_jax.build import build_model
from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, TrainBatches
from resnorm_jax.data.pipeline import Batch
from resnorm_jax.errors import UserError
from resnorm_jax.lab.signals.jacobian import JacobianOptions
from resnorm_jax.lab.signals.measure import Signals, measure
from resnorm_jax.training.identity import Identity, described
from resnorm_jax.training.initial import first_variables
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.run_data import padded_lengths, prepare_data
from resnorm_jax.training.saved_run import load_trained

DEEP = 100  # layers from which the backward pass computes them again


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
      config: with its arrangement.
      meta: of the data.
      batch: the first training batch of the config's seed.
      variables: gives the model's.
      at: initialization, or which checkpoint.
    """

    config: Config
    meta: Mapping[str, Any]
    batch: Batch
    variables: Callable[[Any], Mapping[str, Any]]
    at: str


def subjects(config: Config, arrangements: Iterable[str] = ()) -> list[Subject]:
    """Return a config's model at initialization, once with each arrangement; its own if none.

    Raises:
      UserError: for a mistake in the config or its data.
    """
    return _subjects(config, prepare_data(config), arrangements)


def _subjects(
    config: Config,
    dataset: Dataset,
    arrangements: Iterable[str] = (),
    stored: Identity | None = None,
) -> list[Subject]:
    meta, buckets = described(dataset, stored), padded_lengths(config, dataset, stored)
    batch = TrainBatches(dataset.train, config.train.batch_size, buckets, config.seed).batch_at(0)

    def start(model: Any) -> Mapping[str, Any]:
        return first_variables(config, model, dataset, buckets, config.seed)

    names = list(arrangements) or [config.model.arrangement]
    each = [replace(config, model=replace(config.model, arrangement=name)) for name in names]
    found = [Subject(one, meta, batch, start, "initialization") for one in each]
    for subject in found:  # before any is measured
        build_model(subject.config, dict(meta))
    return found


def trained_subject(workdir: Path, seed: int | None = None, kind: str | None = None) -> Subject:
    """Return a run's model at its checkpoint.

    Raises:
      UserError: if there is no run, or no sound checkpoint of it.
    """
    trained = load_trained(workdir, seed, kind)
    (subject,) = _subjects(trained.config, trained.dataset(), stored=trained.identity)
    at = f"{trained.kind} checkpoint, step {trained.step}"
    return replace(subject, variables=lambda model: trained.variables, at=at)


def signals_of(
    subject: Subject, only: Iterable[str] = (), jacobian: JacobianOptions | None = None
) -> Signals:
    """Measure a subject.

    Raises:
      UserError: for an arrangement that the config's model cannot have.
    """
    config = subject.config
    if config.model.depth >= DEEP and config.model.remat == "none":
        config = replace(config, model=replace(config.model, remat="full"))
    try:
        model = build_model(config, dict(subject.meta))
        return measure(
            model, subject.variables(model), subject.batch, optimizer=peak_optimizer(config),
            only=only, label_smoothing=config.train.label_smoothing, jacobian=jacobian,
            seed=config.seed,
        )  # fmt: skip
    except UserError as error:
        raise UserError(f"{config.model.arrangement}: {error}") from None


def peak_optimizer(config: Config) -> optax.GradientTransformation:
    """The config's optimizer at its peak learning rate, without warm-up: the largest step it takes."""
    peak = replace(config.optimizer, warmup=0.0, schedule="constant")
    return make_optimizer(peak, 1)[0]
