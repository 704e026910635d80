"""Whether an exported model is the model: both on the same rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.data import Examples
from resnorm_jax.errors import UserError
from resnorm_jax.export.formats import read_parameters
from resnorm_jax.export.loaded import Exported
from resnorm_jax.export.program import Program, flat, unflat
from resnorm_jax.training.saved_run import Trained

RANDOM, REAL = 16, 64  # rows
MOST = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference of log-probabilities by the precision of the computation."""


def random_rows(trained: Trained, made: Program, seed: int = 0) -> Examples:
    """Return rows of lengths from 1 on: normal numbers, or tokens of the whole vocabulary."""
    rng, meta = np.random.default_rng(seed), trained.meta
    longest = int(meta["max_length"])
    if made.most is not None:
        longest = min(longest, made.most * made.stride)
    lengths = rng.integers(1, longest + 1, RANDOM).astype(np.int32)
    lengths[-1] = longest
    if meta["kind"] == "images":
        x = rng.normal(size=(RANDOM, *meta["shape"])).astype(np.float32)
        return Examples(x, np.full(RANDOM, x.shape[1], np.int32), np.full(RANDOM, -1, np.int32))
    inside = np.arange(longest) < lengths[:, None]
    if meta["kind"] == "tokens":
        words = rng.integers(1, len(meta["vocabulary"]), inside.shape)
        x = np.where(inside, words, 0).astype(np.int32)
    else:
        values = rng.normal(size=(*inside.shape, *meta["shape"]))
        x = np.where(inside[..., None], values, 0).astype(np.float32)
    return Examples(x, lengths, np.full(RANDOM, -1, np.int32))


def real_rows(trained: Trained) -> Examples:
    """Return test rows of the run.

    Raises:
      UserError: the data are not there, or not what they were.
    """
    try:
        test = trained.dataset().test
    except UserError as error:
        raise UserError(f"{error}; or give rows to check the export on: --input=FILE") from None
    return test.take(np.arange(min(REAL, len(test))))


def largest_difference(trained: Trained, exported: Exported, examples: Examples) -> float:
    """Return how far log-probabilities lie apart at most; infinite if one is no number."""
    found = np.abs(exported.log_probs(examples) - trained.log_probs(examples))
    return float(np.where(np.isfinite(found), found, np.inf).max())


def as_parameters(trained: Trained, folder: Path, about: dict[str, Any]) -> Exported:
    """Return the run's own model with the parameters of a folder.

    Raises:
      UserError: one of them is not, bit for bit, the run's.
    """
    found, own = read_parameters(folder), flat(trained.variables)
    for name in sorted({*found, *own}):
        a, b = found.get(name), own.get(name)
        same = a is not None and b is not None and (a.shape, a.dtype) == (b.shape, b.dtype)
        if not same or a.tobytes() != b.tobytes():  # type: ignore[union-attr]
            raise UserError(f"{folder}: parameter {name} is not what was written")
    other = replace(trained, variables=unflat(found))

    class Same(Exported):
        def log_probs(self, examples: Examples) -> np.ndarray:
            return other.log_probs(examples)

    return Same(lambda *inputs: None, about)
