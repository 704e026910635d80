"""What is asked of a row: one label, or any number of them. A task is a row of the table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from resnorm_jax.config import TrainConfig
from resnorm_jax.errors import UserError
from resnorm_jax.reporting import calibration, many_labels, metrics
from resnorm_jax.training.losses import classification_sums, label_sums


@dataclass(frozen=True)
class Task:
    """A row.

    Attributes:
      name: as metadata have it.
      about: of the rows, in a message.
      sums: ``(logits [B, K], labels, weight [B], label_smoothing, class_weights)`` to weighted sums.
      names: of these sums.
      log_probs: from logits to log-probabilities ``[B, K]``, in a compiled program.
      score: ``(log_probs, labels, classes, thresholds)`` to scores; the last is not read by all.
      logged: scores of the validation rows that a run's log holds beside the loss; the first one
        decides which checkpoint is the best.
      calibrate: log-probabilities at a temperature.
      decide: ``(probabilities, classes, thresholds)`` to what each row is said to be, ``[N]``; the last
        is not read by all.
      unread: fields of ``config.train`` that mean nothing here.
    """

    name: str
    about: str
    sums: Callable[..., dict[str, jax.Array]]
    names: tuple[str, ...]
    log_probs: Callable[[jax.Array], jax.Array]
    score: Callable[..., dict[str, Any]]
    logged: tuple[str, ...]
    calibrate: Callable[[np.ndarray, float], np.ndarray]
    decide: Callable[..., np.ndarray]
    unread: tuple[str, ...] = ()

    def check(self, train: TrainConfig) -> None:
        """Raise UserError for a field that this task does not read."""
        for name in self.unread:
            if getattr(train, name) != getattr(TrainConfig, name):
                raise UserError(
                    f"config.train.{name}: {getattr(train, name)!r} is not read where {self.about}; "
                    "leave it out"
                )


SINGLE = Task(
    "single_label",
    "each row has one label",
    classification_sums,
    ("loss", "correct", "count"),
    jax.nn.log_softmax,
    lambda log_probs, labels, classes, thresholds=None: metrics.score(log_probs, labels, classes),
    ("accuracy", "macro_f1"),
    calibration.calibrate,
    lambda p, classes, thresholds=None: np.array(classes)[p.argmax(-1)],
    ("threshold",),
)
MANY = Task(
    "multi_label",
    "a row has any number of labels",
    label_sums,
    ("loss", "correct", "count", "hits", "said", "true"),
    jax.nn.log_sigmoid,
    many_labels.score,
    ("micro_f1", "accuracy", "macro_f1", "average_precision"),
    many_labels.calibrate,
    many_labels.decide,
    ("class_weights",),
)
TASKS: Mapping[str, Task] = {task.name: task for task in (SINGLE, MANY)}


def task_of(meta: Mapping[str, Any]) -> Task:
    """Return the task of a run's data, by its metadata; without one a row has one label."""
    return TASKS[meta.get("task", SINGLE.name)]


def fixed_thresholds(
    threshold: float | str, found: Mapping[str, Any] | None
) -> np.ndarray | float | None:
    """Return the probabilities from which a row has a label.

    Args:
      threshold: ``config.train.threshold``: a number for all labels, or how it is found.
      found: what `resnorm_jax.training.calibration` keeps of a checkpoint, or None.

    Returns:
      A number, or ``[K]``; None where they were to be found and were not yet.
    """
    if not isinstance(threshold, str):
        return threshold
    known = (found or {}).get("thresholds")
    return None if known is None else np.array(known)
