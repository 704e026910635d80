"""What a config makes of a model beside its architecture: what of it is trained, and by which loss."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.build import told_lengths
from resnorm_jax.config import Config, OptimizerConfig, TrainConfig
from resnorm_jax.errors import UserError
from resnorm_jax.training.learned import learned_of
from resnorm_jax.training.losses import balanced_weights
from resnorm_jax.training.low_rank import low_rank_of
from resnorm_jax.training.step import WEIGHTED, StepOptions
from resnorm_jax.training.tasks import SINGLE, Task

# Fields that only `resnorm train` reads, of which other commands cannot do what they say.
TRAINING_ALONE = (
    ("optimizer", "lora_rank"),
    ("train", "class_weights"),
    ("train", "threshold"),
    ("train", "patience"),
    ("pretrain", "updates"),
)


def class_weights(train: TrainConfig, labels: np.ndarray, classes: int) -> tuple[float, ...] | None:
    """Return the weight of each class in the loss, or None where all weigh alike."""
    return balanced_weights(labels, classes) if train.class_weights == "balanced" else None


def sum_names(train: TrainConfig, task: Task) -> tuple[str, ...]:
    """Return the names of a run's sums, which its state holds."""
    return task.names if train.class_weights == "none" else WEIGHTED


def step_options(
    model: Any,
    optimizer: OptimizerConfig,
    train: TrainConfig,
    made: optax.GradientTransformation,
    weights: tuple[float, ...] | None,
    task: Task = SINGLE,
) -> StepOptions:
    """Return what a run's step is made of.

    Args:
      model: of the run.
      optimizer: its config: what of the model is trained.
      train: likewise: loss, micro-batches, averages.
      made: the transform of that config.
      weights: of the classes; see `class_weights`.
      task: what is asked of a row.
    """
    low_rank = low_rank_of(optimizer)
    return StepOptions(
        model.apply if low_rank is None else low_rank.applied(model.apply),
        made, train.label_smoothing, train.accumulate, train.ema, train.log_every,
        by_length=told_lengths(model), learned=learned_of(optimizer), class_weights=weights,
        task=task,
    )  # fmt: skip


def with_low_rank(optimizer: OptimizerConfig, variables: Any, seed: Any) -> Any:
    """Return a model's variables, with the low-rank matrices in them that the config asks for."""
    low_rank = low_rank_of(optimizer)
    return variables if low_rank is None else low_rank.added(variables, jnp.uint32(seed))


def without_low_rank(optimizer: OptimizerConfig, variables: Any) -> Any:
    """Return a model's own variables: low-rank matrices, if any, added to the kernels."""
    low_rank = low_rank_of(optimizer)
    return variables if low_rank is None else low_rank.merged(variables)


def whole(config: OptimizerConfig, rate: float | None) -> OptimizerConfig:
    """Return an optimizer's config with which all parameters are trained, and every layer alike.

    Args:
      config: of a run.
      rate: largest learning rate in place of its own.
    """
    plain = OptimizerConfig()
    names = ("frozen", "layer_decay", "lora_rank", "lora_alpha", "lora_on")
    chosen = replace(config, **{name: getattr(plain, name) for name in names})
    return chosen if rate is None else replace(chosen, learning_rate=rate)


def check_read(config: Config, command: str) -> None:
    """Raise UserError for a field that a command does not read, though it trains by a config."""
    if config.parallel != Config.parallel:
        raise UserError(
            f"config.parallel: {config.parallel} is not read by {command}; leave it out"
        )
    for section, name in TRAINING_ALONE:
        part = getattr(config, section)
        value = getattr(part, name)
        if value != getattr(type(part), name):
            raise UserError(
                f"config.{section}.{name}: {value} is not read by {command}; leave it out"
            )
