"""Optimizers and schedules by name, on optax."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import jax.numpy as jnp
import optax

from resnorm_jax.config import OptimizerConfig
from resnorm_jax.errors import UserError, check_choice
from resnorm_jax.training.learned import learned_of, on_part, scale_by_layer
from resnorm_jax.training.low_rank import low_rank_of
from resnorm_jax.training.roles import decay_mask, decay_roles
from resnorm_jax.training.unit_weights import unit_weights

_DEFAULT_DECAY = next(f.default for f in fields(OptimizerConfig) if f.name == "decay")


@dataclass(frozen=True)
class Algorithm:
    """A row: the optax transform that turns gradients into a direction, and what it reads."""

    name: str
    direction: Callable[..., optax.GradientTransformation]
    defaults: dict[str, float]
    source: str


ALGORITHMS = {
    row.name: row
    for row in (
        Algorithm(
            "adamw",
            lambda b1, b2, epsilon: optax.scale_by_adam(b1, b2, epsilon),
            {"b1": 0.9, "b2": 0.999, "epsilon": 1e-8, "weight_decay": 1e-4},
            "Loshchilov and Hutter 2017 (arXiv 1711.05101), algorithm 2",
        ),
        Algorithm(
            "adam",
            lambda b1, b2, epsilon: optax.scale_by_adam(b1, b2, epsilon),
            {"b1": 0.9, "b2": 0.999, "epsilon": 1e-8},
            "Kingma and Ba 2014 (arXiv 1412.6980), algorithm 1",
        ),
        Algorithm(
            "lion",
            lambda b1, b2: optax.scale_by_lion(b1, b2),
            {"b1": 0.9, "b2": 0.99, "weight_decay": 1e-3},
            "Chen et al. 2023 (arXiv 2302.06675), algorithm 2",
        ),
        Algorithm(
            "sgd",
            lambda momentum: optax.trace(momentum),
            {"momentum": 0.9, "weight_decay": 0.0},
            "Sutskever et al. 2013; decoupled decay as in arXiv 1711.05101, algorithm 1",
        ),
    )
}


def _cosine(peak: float, steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(peak, max(1, steps))


def _linear(peak: float, steps: int) -> optax.Schedule:
    return optax.linear_schedule(peak, 0.0, max(1, steps))


def _constant(peak: float, steps: int) -> optax.Schedule:
    return optax.constant_schedule(peak)


# What follows the warm-up; rsqrt depends on the warm-up and is made apart.
SCHEDULES: dict[str, Callable[[float, int], optax.Schedule] | None] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": _constant,
    "rsqrt": None,
}


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the step: linear warm-up, then the named decay.

    With ``w = round(warmup steps)``: the rate at step t < w is ``peak (t + 1) / w``, so that the first
    step is not wasted. ``rsqrt`` goes on as ``peak sqrt(w / (t + 1))`` (Vaswani et al. 2017, eq. 3,
    scaled to its peak), the others as optax's schedules over the ``steps - w`` that are left.

    Raises:
      UserError: if the name is not known.
    """
    after = SCHEDULES[check_choice("config.optimizer.schedule", config.schedule, SCHEDULES)]
    peak, wait = config.learning_rate, round(config.warmup * steps)
    if after is None:
        wait = max(1, wait)
        return lambda t: peak * jnp.minimum((t + 1) / wait, (wait / (t + 1)) ** 0.5)
    decay = after(peak, steps - wait)
    if not wait:
        return decay
    rise = optax.linear_schedule(peak / wait, peak, max(1, wait - 1))
    return optax.join_schedules([rise, decay], [wait])


def make_optimizer(
    config: OptimizerConfig, steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Return the gradient transform and the learning-rate schedule.

    Clip, then the algorithm's direction, then decoupled weight decay on the parameters whose role
    ``config.decay`` names (see `resnorm_jax.training.roles`), then the learning rate, its share by
    layer, and unit kernels if the config asks for them. What is frozen has no part in any of it.

    Raises:
      UserError: for an algorithm, a role or a part that is not known, or an option that is not read.
    """
    row = ALGORITHMS[check_choice("config.optimizer.algorithm", config.algorithm, ALGORITHMS)]
    options = dict(row.defaults)
    for name in ("weight_decay", "b1", "b2", "epsilon", "momentum"):
        value = getattr(config, name)
        if value is None:
            continue
        if name not in row.defaults:
            raise UserError(
                f"config.optimizer.{name}: {row.name} does not read it; "
                f"it reads {', '.join(sorted(row.defaults))}"
            )
        options[name] = value
    decay, roles = options.pop("weight_decay", 0.0), decay_roles(config.decay)
    if not decay and config.decay != _DEFAULT_DECAY:
        raise UserError(
            f"config.optimizer.decay: not read: {row.name} has no weight decay here; "
            "set optimizer.weight_decay, or another optimizer.algorithm"
        )
    schedule = make_schedule(config, steps)
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip is not None else []
    parts.append(row.direction(**options))
    if decay:
        parts.append(optax.add_decayed_weights(decay, mask=partial(decay_mask, roles=roles)))
    parts.append(optax.scale_by_learning_rate(schedule))
    low_rank_of(config)  # refuses what is not read
    learned = learned_of(config)
    if learned is not None or config.layer_decay != 1:
        parts = [on_part(optax.chain(*parts), learned)]
    if config.layer_decay != 1:
        parts.append(scale_by_layer(config.layer_decay))
    if config.unit_weights:
        parts.append(on_part(unit_weights(), learned))
    return optax.chain(*parts), schedule
