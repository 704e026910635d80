"""Exact evaluation: every row counts once, whatever the batch size and the number of devices."""

from collections.abc import Callable, Mapping, Sequence
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
    between: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Return log-probabilities ``[N, K]`` of all rows, in their order.

    ``variables`` are the model's: ``params`` and what it keeps beside them. ``between`` is called
    after each batch; what it raises ends the evaluation.
    """
    out: np.ndarray | None = None
    for batch in eval_batches(examples, batch_size, buckets):
        log_probs = parallel.predict(variables, batch)
        if out is None:
            out = np.full((len(examples), log_probs.shape[-1]), np.nan, log_probs.dtype)
        real = batch["rows"] >= 0
        out[batch["rows"][real]] = log_probs[real]
        between()
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
    between: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Return the scores of `resnorm_jax.reporting.metrics.score` over all rows."""
    log_probs = predict(parallel, variables, examples, batch_size, buckets, between)
    return score(log_probs, examples.y, classes)
