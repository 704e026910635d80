"""Short trainings of a classifier on real data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.arrangements import Arrangement
from resnorm_jax.lab.problems import Problem, Rows, problem
from resnorm_jax.lab.trainer import cross_entropy, drawn_rows, over, training
from resnorm_jax.modules.classifier import SequenceClassifier
from resnorm_jax.modules.encoder import TransformerEncoder
from resnorm_jax.modules.front_ends import FeatureEmbedding
from resnorm_jax.training.initial import INIT_KEY
from resnorm_jax.training.step import StepOptions, create_state, scored_variables

# Directions of an update by name; Adagrad's sum starts at 0, as PyTorch's does.
DIRECTIONS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": optax.scale_by_adam,
    "adagrad": lambda: optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-10),
}


@dataclass(frozen=True)
class Recipe:
    """What is alike in all runs that are compared."""

    task: str = "rows"
    depth: int = 12
    width: int = 32
    heads: int = 4
    mlp_width: int = 64
    batch: int = 32
    steps: int = 300
    direction: str = "adam"
    activation: str = "relu"
    dropout: float = 0.0


@dataclass(frozen=True, eq=False)
class Runs:
    """What came of R runs.

    Attributes:
      loss: ``[R, T]``, of each step's batch.
      train_accuracy: ``[R]``.
      train_loss: ``[R]``.
      test_accuracy: ``[R]``.
      variables: the model's, runs first.
    """

    loss: np.ndarray
    train_accuracy: np.ndarray
    train_loss: np.ndarray
    test_accuracy: np.ndarray
    variables: Any


@lru_cache(maxsize=4)
def load_task(name: str) -> Problem:
    """Return a row of `resnorm_jax.lab.problems.SOURCES`, both splits padded to one length."""
    found = problem(name)
    length = max(rows.x.shape[1] for rows in (found.train, found.test))
    return replace(found, train=found.train.padded(length), test=found.test.padded(length))


def classifier(row: str | Arrangement, norm: str, recipe: Recipe) -> SequenceClassifier:
    """Return the recipe's model with one arrangement and one norm."""
    task = load_task(recipe.task)
    encoder = TransformerEncoder(
        depth=recipe.depth, heads=recipe.heads, mlp_width=recipe.mlp_width, arrangement=row,
        norm=norm, activation=recipe.activation, dropout=recipe.dropout,
    )  # fmt: skip
    return SequenceClassifier(
        classes=task.classes,
        front_end=FeatureEmbedding(recipe.width),
        encoder=encoder,
        max_length=task.train.x.shape[1],
        dropout=recipe.dropout,
    )


def warm(peak: float, warmup: int, steps: int) -> np.ndarray:
    """Return the rate of each step: ``peak min((t + 1) / warmup, 1)``."""
    return peak * np.minimum((np.arange(steps) + 1) / max(warmup, 1), 1)


Prepare = Callable[[Any, Any, jax.Array, jax.Array], Any]


def train_runs(
    model: SequenceClassifier,
    recipe: Recipe,
    rates: Sequence[np.ndarray],
    seeds: Sequence[int],
    prepare: Prepare | None = None,
) -> Runs:
    """Train one model from each pair of seed and learning rates.

    Args:
      model: what is trained.
      recipe: data, batch, steps and optimizer.
      rates: one array ``[T]`` a run.
      seeds: one a run.
      prepare: ``(model, variables, x, mask) -> params``, run on one batch before the first step.
    """
    task = load_task(recipe.task)

    def one(key: jax.Array, rate: jax.Array) -> dict[str, Any]:
        rows = task.train
        variables = model.init(jax.random.fold_in(key, INIT_KEY), rows.x[:1], rows.mask[:1])
        if prepare is not None:
            some = rows.take(drawn_rows(key, INIT_KEY - 1, len(rows.y), recipe.batch))
            params = prepare(model, variables, some.x, some.mask)
            variables = {**variables, "params": params}
        state, loss = _train(model, recipe, variables, key, rate, rows)
        scored = scored_variables(state)
        train, test = (_score(model, scored, split) for split in (task.train, task.test))
        return {"loss": loss, "train": train, "test": test, "variables": scored}

    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    each = jax.jit(lambda *given: over(one, *given, together=False))
    found = each(keys, jnp.asarray(np.stack(rates), jnp.float32))
    (train_accuracy, train_loss), (test_accuracy, _) = found["train"], found["test"]
    numbers = (found["loss"], train_accuracy, train_loss, test_accuracy)
    loss, *scores = (np.asarray(n) for n in numbers)
    return Runs(loss, scores[0], scores[1], scores[2], found["variables"])


def _train(model, recipe: Recipe, variables, key, rate, rows: Rows):
    direction = DIRECTIONS[recipe.direction]()
    optimizer = optax.chain(
        direction,
        optax.scale_by_schedule(lambda step: -rate[step]),
    )
    train = training(StepOptions(model.apply, optimizer))
    state = create_state(variables, optimizer, 0, None)
    state = state.replace(key=jax.random.key_data(key))

    def step(state, _):
        some = rows.take(drawn_rows(key, state.step, len(rows.y), recipe.batch))
        return train(state, {**some._asdict(), "weight": jnp.ones(recipe.batch)})

    return jax.lax.scan(step, state, None, length=recipe.steps)


def _score(model, variables, rows: Rows) -> tuple[jax.Array, jax.Array]:
    """Return accuracy and mean cross-entropy."""
    logits = model.apply(variables, rows.x, rows.mask)
    loss = cross_entropy(logits, rows.y)
    return (logits.argmax(-1) == rows.y).mean(), loss
