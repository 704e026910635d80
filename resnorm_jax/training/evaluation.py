"""Exact evaluation: every row counts once, whatever the batch size and the number of devices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.data.dataset import Examples
from resnorm_jax.data.pipeline import eval_batches
from resnorm_jax.reporting.metrics import score
from resnorm_jax.training.devices import DataParallel


def predict(
    parallel: DataParallel,
    variables: Mapping[str, Any],
    examples: Examples,
    batch_size: int,
    buckets: Sequence[int],
) -> np.ndarray:
    """Return log-probabilities ``[N, K]`` of all rows, in their order.

    ``variables`` are the model's: ``params`` and what it keeps beside them.
    """
    out: np.ndarray | None = None
    for batch in eval_batches(examples, batch_size, buckets):
        log_probs = parallel.predict(variables, batch)
        if out is None:
            out = np.full((len(examples), log_probs.shape[-1]), np.nan, log_probs.dtype)
        real = batch["rows"] >= 0
        out[batch["rows"][real]] = log_probs[real]
    if out is None:
        raise ValueError("there are no rows to predict")
    return out


def evaluate(
    parallel: DataParallel,
    variables: Mapping[str, Any],
    examples: Examples,
    classes: Sequence[str],
    batch_size: int,
    buckets: Sequence[int],
) -> dict[str, Any]:
    """Return the scores of `resnorm_jax.reporting.metrics.score` over all rows."""
    return score(predict(parallel, variables, examples, batch_size, buckets), examples.y, classes)
