"""What a data source gives: arrays, one row an example, padded at the end.

Nothing here imports jax: the data layer is NumPy, so that it can be read and tested on its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from resnorm_jax.data.ragged import Ragged
from resnorm_jax.data.row_arrays import MEMORY, Store, parts_of

Kind = Literal["features", "tokens", "images"]
Task = Literal["single_label", "multi_label"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows of one split.

    Attributes:
      x: ``[N, L, C]`` float32 for features, ``[N, L]`` integers for tokens, ``[N, H, W, C]``
        float32 for images. Positions at and after a row's length are padding and hold zeros. Tokens
        that would take much memory are a `Ragged`, which reads as such an array.
      lengths: ``[N]`` int32, valid positions of each row (for images: H, not used).
      y: ``[N]`` int32 class indices; or, where a row has any number of labels, ``[N, K]`` int8: 1 for
        those that it has, 0 for the others. -1 where it is not known (rows to predict).
    """

    x: np.ndarray
    lengths: np.ndarray
    y: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.lengths) == len(self.y):
            raise ValueError(
                f"rows differ: x {len(self.x)}, lengths {len(self.lengths)}, y {len(self.y)}"
            )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def store(self) -> Store:
        """Where arrays of a number a row are kept that are made of these rows."""
        return self.x.store if isinstance(self.x, Ragged) else MEMORY

    def take(self, rows: np.ndarray) -> "Examples":
        """Return the rows at these indices."""
        if not isinstance(self.x, Ragged):
            return Examples(self.x[rows], self.lengths[rows], self.y[rows])
        lengths, y = (self._taken(array, rows) for array in (self.lengths, self.y))
        return Examples(self.x.take(rows), lengths, y)

    def _taken(self, array: np.ndarray, rows: np.ndarray) -> np.ndarray:
        count = len(rows) * (array.size // max(len(array), 1))
        return self.store.keep(lambda: (array[part] for part in parts_of(rows)), count, array.dtype)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification problem.

    Attributes:
      name: for titles, e.g. ``"JapaneseVowels"``.
      kind: what ``x`` holds; it chooses the model's front end.
      train: rows to learn from.
      test: rows that are scored once.
      classes: class names, by index.
      valid: rows for model selection where the source has an official split; else None.
      vocabulary: token names by index for ``kind="tokens"`` (index 0 is padding); empty otherwise.
      rules: trivial rules' test accuracy beside the majority class, e.g.
        ``{"root operator": 0.36}``.
      scaling: ``(mean, scale)`` per channel already applied to ``x``, or None.
      encoding: how text became tokens (``tokenizer``, ``max_length``, column names); empty where
        the source holds no text. JSON-able: new inputs are encoded by it.
      source: ``{"name": ..., "options": {...}}``, set by ``load_dataset``. JSON-able.
      files: what a run must keep to prepare new inputs, by name: ``tokenizer.json``.
      told: what the source says of its rows in ``report.json``, e.g. how many were cut. JSON-able.
      lines: what it says in the first lines of a run.
    """

    name: str
    kind: Kind
    train: Examples
    test: Examples
    classes: tuple[str, ...]
    valid: Examples | None = None
    vocabulary: tuple[str, ...] = ()
    rules: Mapping[str, float] = field(default_factory=dict)
    scaling: tuple[np.ndarray, np.ndarray] | None = None
    encoding: Mapping[str, object] = field(default_factory=dict)
    source: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    told: Mapping[str, object] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """Whether a row has one label, or any number of them."""
        return "multi_label" if self.train.y.ndim == 2 else "single_label"

    @property
    def max_length(self) -> int:
        """The longest row of any split."""
        splits = [s for s in (self.train, self.valid, self.test) if s is not None and len(s)]
        return int(max(s.lengths.max() for s in splits))

    def replace(self, **changes: object) -> "Dataset":
        """Return a copy with these fields changed."""
        return replace(self, **changes)  # type: ignore[arg-type]
