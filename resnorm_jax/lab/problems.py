"""The data that the lab trains on, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from resnorm_jax.data import Dataset, Examples, load_dataset, majority_accuracy, scale_channels


class Rows(NamedTuple):
    """``x`` and labels of a split, and which positions of ``x [B, L, ...]`` are valid."""

    x: Any
    y: Any
    mask: Any

    def take(self, rows: Any) -> "Rows":
        """Return these rows."""
        return Rows(*(each[rows] for each in self))

    def flat(self) -> "Rows":
        """Return the rows with all their features in one vector."""
        return self._replace(x=self.x.reshape(len(self.x), -1))

    def padded(self, length: int) -> "Rows":
        """Return the rows with ``length`` positions of ``x [B, L, C]``."""
        extra = ((0, 0), (0, length - self.x.shape[1]))
        return self._replace(x=jnp.pad(self.x, (*extra, (0, 0))), mask=jnp.pad(self.mask, extra))


@dataclass(frozen=True)
class Problem:
    """A classification problem; ``majority`` is the accuracy of always saying the commonest class."""

    name: str
    kind: str
    train: Rows
    test: Rows
    classes: int
    vocabulary: int
    majority: float


SOURCES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "speech": ("series", {"name": "JapaneseVowels"}),
    "images": ("digits", {"view": "image"}),
    "rows": ("digits", {"view": "rows"}),
    "text": (
        "listops",
        {
            "min_length": 4, "max_length": 24, "max_depth": 3, "max_args": 4,
            "train": 2000, "valid": 0, "test": 500,
        },
    ),
}  # fmt: skip


@cache
def problem(name: str) -> Problem:
    """Load a row of `SOURCES`; features are scaled by the training rows."""
    source, options = SOURCES[name]
    data: Dataset = scale_channels(load_dataset(source, options))
    return Problem(
        data.name,
        data.kind,
        _rows(data.train, data),
        _rows(data.test, data),
        len(data.classes),
        len(data.vocabulary),
        float(majority_accuracy(data)),
    )


def _rows(examples: Examples, data: Dataset) -> Rows:
    if data.kind == "images":
        mask = np.ones((len(examples), 1), bool)
        return Rows(jnp.asarray(examples.x), jnp.asarray(examples.y), jnp.asarray(mask))
    x = examples.x[:, : data.max_length]
    x = x.astype(np.int32) if data.kind == "tokens" else x
    mask = np.arange(x.shape[1]) < examples.lengths[:, None]
    return Rows(jnp.asarray(x), jnp.asarray(examples.y), jnp.asarray(mask))
