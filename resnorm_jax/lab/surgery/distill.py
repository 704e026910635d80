"""A changed model learns from the unchanged one, on training rows, without their labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.config import OptimizerConfig
from resnorm_jax.data import TrainBatches
from resnorm_jax.lab.trainer import descent
from resnorm_jax.training.optimizers import make_optimizer

Params = Any


@dataclass(frozen=True)
class Recipe:
    """How a student learns.

    Attributes:
      steps: updates.
      optimizer: its config; schedule and warm-up run over these steps.
      temperature: T of both models' probabilities.
      hidden: weight of the error of the pooled vectors, relative to the teacher's; 0 leaves it out.
    """

    steps: int
    optimizer: OptimizerConfig
    temperature: float = 1.0
    hidden: float = 0.0


def distillation_loss(
    student: tuple[jax.Array, jax.Array],
    teacher: tuple[jax.Array, jax.Array],
    weight: jax.Array,
    recipe: Recipe,
) -> jax.Array:
    """Return the mean over rows of ``T^2 KL(p || q)``, and of the pooled vectors' relative error.

    ::

        p = softmax(teacher / T), q = softmax(student / T)
        loss = T^2 sum_k p (log p - log q) + hidden |h_s - h_t|^2 / mean(|h_t|^2)

    Args:
      student: logits ``[B, K]`` and pooled vectors ``[B, D]``.
      teacher: likewise.
      weight: ``[B]``, 0 for rows that fill a batch.
      recipe: T and the weight of the second term.

    Source: Hinton et al. 2015 (arXiv 1503.02531), section 2; hidden states as Jiao et al. 2019
    (TinyBERT, arXiv 1909.10351), eq. 8, here of the pooled vector, over the teacher's mean square.
    """
    heat = recipe.temperature
    p, q = (jax.nn.log_softmax(logits / heat) for logits, _ in (teacher, student))
    rows = heat**2 * jnp.sum(jnp.exp(p) * (p - q), axis=-1)
    if recipe.hidden:
        size = jnp.sum(jnp.square(teacher[1]), -1)
        scale = jnp.sum(size * weight) / jnp.sum(weight)
        rows += recipe.hidden * jnp.sum(jnp.square(student[1] - teacher[1]), -1) / scale
    return jnp.sum(rows * weight) / jnp.sum(weight)


def distilled(
    student: nn.Module,
    params: Params,
    teacher: Callable[[Mapping[str, Any]], tuple[jax.Array, jax.Array]],
    batches: TrainBatches,
    recipe: Recipe,
    told: Callable[[int, int], None] = lambda step, rows: None,
) -> tuple[Params, list[float]]:
    """Train a student from ``params`` on; return its parameters, and the loss of each step.

    Args:
      student: the changed model; run without dropout.
      params: its first parameters.
      teacher: a batch to what `outputs` gives of the unchanged model.
      batches: of training rows; their labels are not read.
      recipe: how it learns.
      told: given the steps done, and the rows of the last.
    """
    optimizer, _ = make_optimizer(recipe.optimizer, recipe.steps)

    def loss(params: Params, batch: Mapping[str, Any]) -> tuple[jax.Array, None]:
        made = outputs(student, {"params": params}, batch)
        return distillation_loss(made, teacher(batch), batch["weight"], recipe), None

    step = jax.jit(descent(loss, optimizer), donate_argnums=0)
    # What is donated is no array that another model still uses.
    state, losses = (jax.tree.map(jnp.array, params), optimizer.init(params)), []
    for index in range(recipe.steps):
        batch = batches.batch_at(index)
        read = {name: batch[name] for name in ("x", "mask", "weight") if name in batch}
        state, value = step(state, read)
        losses.append(value)
        told(index + 1, int(batch["weight"].sum()))
    return state[0], [float(value) for value in losses]


def outputs(
    model: nn.Module, variables: Mapping[str, Any], batch: Mapping[str, Any]
) -> tuple[jax.Array, jax.Array]:
    """Return logits ``[B, K]`` and pooled vectors of a batch, dropout off."""
    logits, named = model.apply(variables, batch["x"], batch.get("mask"), return_intermediates=True)
    return logits, named["pooled"]
