"""A changed model learns from the unchanged one, on training rows, without their labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.config import OptimizerConfig
from resnorm_jax.data import Examples, TrainBatches
from resnorm_jax.data.pipeline import eval_batches
from resnorm_jax.lab.surgery.pointwise import token_weight
from resnorm_jax.lab.trainer import descent
from resnorm_jax.training.optimizers import make_optimizer

Params = Any


class Outputs(NamedTuple):
    """What a model makes of a batch.

    Attributes:
      logits: ``[B, K]``; of a model without classes the vectors that it is for.
      pooled: ``[B, D]``, what its last projection sees.
      encoded: ``[B, T, D]``, what its encoder returns.
      valid: ``[B, T]`` float, 1 at valid positions of ``encoded``.
    """

    logits: jax.Array
    pooled: jax.Array
    encoded: jax.Array
    valid: jax.Array


@dataclass(frozen=True)
class Recipe:
    """How a student learns.

    Attributes:
      steps: updates.
      optimizer: its config; schedule and warm-up run over these steps.
      temperature: T of both models' probabilities; None where the logits are vectors, whose error is
        then the loss.
      hidden: weight of the error of the pooled vectors, relative to the teacher's; 0 leaves it out.
      positions: likewise of the encoder's output at every valid position.
    """

    steps: int
    optimizer: OptimizerConfig
    temperature: float | None = 1.0
    hidden: float = 0.0
    positions: float = 0.0


def distillation_loss(
    student: Outputs, teacher: Outputs, weight: jax.Array, recipe: Recipe
) -> jax.Array:
    """Return the mean over rows of ``T^2 KL(p || q)``, and of the hidden vectors' relative errors.

    ::

        p = softmax(teacher / T), q = softmax(student / T)
        error(s, t) = mean(|s - t|^2) / mean(|t|^2)
        loss = T^2 mean(sum_k p (log p - log q)) + hidden error(pooled) + positions error(encoded)

    The means run over rows, or over valid positions of these. Without a temperature the first term is
    ``error(logits)``.

    Args:
      student: what it makes of a batch.
      teacher: likewise.
      weight: ``[B]``, 0 for rows that fill a batch.
      recipe: T and the weights of the terms.

    Source: Hinton et al. 2015 (arXiv 1503.02531), section 2; hidden states as Jiao et al. 2019
    (TinyBERT, arXiv 1909.10351), eq. 8, here over the teacher's mean square.
    """
    heat = recipe.temperature
    if heat is None:
        loss = _error(student.logits, teacher.logits, weight)
    else:
        p, q = (jax.nn.log_softmax(made.logits / heat) for made in (teacher, student))
        rows = heat**2 * jnp.sum(jnp.exp(p) * (p - q), axis=-1)
        loss = jnp.sum(rows * weight) / jnp.sum(weight)
    if recipe.hidden:
        loss += recipe.hidden * _error(student.pooled, teacher.pooled, weight)
    if recipe.positions:
        each = weight[:, None] * teacher.valid
        loss += recipe.positions * _error(student.encoded, teacher.encoded, each)
    return loss


def _error(student: jax.Array, teacher: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the squared error over the teacher's square, of what has a weight."""
    # What stands at positions without weight may be anything.
    error = jnp.where(weight[..., None] > 0, student - teacher, 0)
    size = jnp.where(weight[..., None] > 0, teacher, 0)
    squares = (jnp.sum(jnp.square(a) * weight[..., None]) for a in (error, size))
    return next(squares) / next(squares)


def distilled(
    student: nn.Module,
    params: Params,
    teacher: Callable[[Mapping[str, Any]], Outputs],
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


def outputs(model: nn.Module, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> Outputs:
    """Return what a model makes of a batch, dropout off."""
    mask = batch.get("mask")
    logits, named = model.apply(variables, batch["x"], mask, return_intermediates=True)
    encoded = named["encoded"]
    valid = jnp.ones(encoded.shape[:2]) if mask is None else token_weight(mask, encoded)
    return Outputs(logits, named["pooled"], encoded, valid)


def all_outputs(
    model: nn.Module,
    variables: Mapping[str, Any],
    rows: Examples,
    batch_size: int,
    buckets: tuple[int, ...],
) -> np.ndarray:
    """Return a model's logits ``[N, K]`` of all rows, in their order."""
    apply, out = jax.jit(model.apply), dict[int, np.ndarray]()
    for batch in eval_batches(rows, batch_size, buckets):
        found = np.asarray(apply(variables, batch["x"], batch.get("mask")))
        out |= {int(row): one for row, one in zip(batch["rows"], found, strict=True) if row >= 0}
    return np.stack([out[row] for row in range(len(rows))])
