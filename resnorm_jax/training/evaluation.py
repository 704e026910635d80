"""Exact evaluation: every row counts once, whatever the batch size and the number of devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.data.dataset import Examples
from resnorm_jax.data.pipeline import eval_batches
from resnorm_jax.data.row_arrays import blocks
from resnorm_jax.errors import DivergedError, UserError
from resnorm_jax.training.advice import HUGE
from resnorm_jax.training.doors import Door


def predict(
    parallel: Door,
    variables: Mapping[str, Any],
    examples: Examples,
    batch_size: int,
    buckets: Sequence[int],
    doing: Callable[[str], None] = lambda activity: None,
) -> np.ndarray:
    """Return log-probabilities ``[N, K]`` of all rows, in their order.

    Args:
      parallel: runs the model.
      variables: of the model: ``params`` and what it keeps beside them.
      examples: the rows.
      batch_size: of a global batch.
      buckets: padded lengths.
      doing: told of each batch before it.

    Raises:
      UserError: for a row whose own values leave no finite number.
      DivergedError: for one whose values do not explain it.
    """
    out: np.ndarray | None = None
    variables = parallel.replicate(variables)  # once, not with each batch
    for batch in eval_batches(examples, batch_size, buckets, parallel.share(batch_size)):
        doing("a batch was evaluated")
        log_probs = parallel.predict(variables, batch)
        if out is None:
            out = np.full((len(examples), log_probs.shape[-1]), np.nan, log_probs.dtype)
        real = batch["rows"] >= 0
        out[batch["rows"][real]] = log_probs[real]
    if out is None:
        raise ValueError("there are no rows to predict")
    _check_finite(out, examples)
    return out


def _check_finite(log_probs: np.ndarray, examples: Examples) -> None:
    """Raise an error for the first row without probabilities; a probability of 0 is one."""
    bad = np.empty(len(log_probs), bool)
    for block in blocks(len(log_probs)):
        part = log_probs[block]
        bad[block] = np.isnan(part).any(1) | ~np.isfinite(part.max(1))
    if not bad.any():
        return
    row = int(bad.argmax())
    largest = np.abs(examples.x[row]).max(initial=0)
    if not largest < HUGE:
        raise UserError(
            f"row {row + 1} of those scored: the model's output is not finite: its values reach "
            f"{largest:.0e}; rescale the data, or leave out this row"
        )
    raise DivergedError(
        f"row {row + 1} of those scored, the first of {int(bad.sum())}: the model's output is not "
        "finite, with parameters that are; try a lower optimizer.learning_rate"
    )


def evaluate(
    parallel: Door,
    variables: Mapping[str, Any],
    examples: Examples,
    classes: Sequence[str],
    batch_size: int,
    buckets: Sequence[int],
    doing: Callable[[str], None] = lambda activity: None,
) -> dict[str, Any]:
    """Return the scores of the run's task over all rows; see `predict`."""
    found = predict(parallel, variables, examples, batch_size, buckets, doing)
    return parallel.options.task.score(found, examples.y, classes)
