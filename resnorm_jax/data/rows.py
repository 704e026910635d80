"""Rows as every reader gives them, to learn from and to predict alike."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from resnorm_jax.data.dataset import Examples, Kind
from resnorm_jax.data.names import check_distinct, shown
from resnorm_jax.errors import UserError, nearest

Label = str | tuple[str, ...] | None
INTEGER = re.compile(r"-?\d{1,4000}")  # Python reads no number of more than 4,300 digits


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one file, not yet encoded, padded or scaled.

    Attributes:
      values: one a row: a text, a list of numbers, or an array ``[L, ...]`` without padding.
      labels: class names, one a row, or a tuple of them where a row has any number; None where the
        file gives none.
      where: ``file:line`` or ``file: row i``, one a row.
      kind: what the values are, where the format tells.
      declared: class names in the order of the file's header; empty where it declares none.
    """

    values: Sequence[Any]
    labels: Sequence[Label]
    where: Sequence[str]
    kind: Kind | None = None
    declared: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.where)

    @property
    def many(self) -> bool:
        """Whether a row has any number of labels."""
        return any(isinstance(label, tuple) for label in self.labels)

    def take(self, rows: np.ndarray) -> "Rows":
        """Return the rows at these indices."""
        values, labels, where = (
            [column[i] for i in rows] for column in (self.values, self.labels, self.where)
        )
        return replace(self, values=values, labels=labels, where=where)

    def padded(self, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
        """Return ``x [N, max L, ...]`` with zeros at the end, and ``lengths [N]`` int32.

        Tokens are int32, all else is float32. The values differ in their first axis only.
        """
        lengths = np.array([len(value) for value in self.values], dtype=np.int32)
        shape = (len(lengths), int(lengths.max()), *np.shape(self.values[0])[1:])
        x = np.zeros(shape, np.int32 if kind == "tokens" else np.float32)
        for target, value in zip(x, self.values, strict=True):
            target[: len(value)] = value
        return x, lengths

    def examples(self, kind: Kind, classes: Sequence[str], known_from: str) -> Examples:
        """Return the rows `padded`, with their labels' `indices`."""
        return Examples(*self.padded(kind), self.indices(classes, known_from))

    def indices(self, classes: Sequence[str], known_from: str) -> np.ndarray:
        """Return the labels as indices of classes.

        Args:
          classes: known names, by index.
          known_from: what the classes were taken from, for the message.

        Returns:
          ``[N]`` int32, or ``[N, K]`` int8 of 0 and 1 where a row has any number of labels; -1 where
          a row's are not known.

        Raises:
          UserError: a label is not among the classes.
        """
        index: dict[Label, int] = {name: i for i, name in enumerate(classes)}
        for label, place in self._each():
            if label not in index:
                check_distinct([*classes, label], [*[known_from] * len(classes), place])
                raise UserError(
                    f"{place}: unseen label {shown(label)}, not in {known_from}; "
                    f"{nearest(label, classes)}"
                )
        if not self.many:
            return np.array([index.get(label, -1) for label in self.labels], dtype=np.int32)
        y = np.zeros((len(self), len(classes)), np.int8)
        for row, labels in zip(y, self.labels, strict=True):
            row[:] = -1 if labels is None else 0
            row[[index[label] for label in labels or ()]] = 1
        return y

    def _each(self) -> Iterator[tuple[str, str]]:
        """Yield every label of every row, and the row's place."""
        for labels, place in zip(self.labels, self.where, strict=True):
            if labels is not None:
                for label in labels if isinstance(labels, tuple) else (labels,):
                    yield label, place

    def class_names(self) -> tuple[str, ...]:
        """Return the different labels: in numeric order if all are integers, else by alphabet.

        Raises:
          UserError: two labels differ in nothing but their Unicode form.
        """
        places: dict[str, str] = {}
        for label, place in self._each():
            places.setdefault(label, place)
        check_distinct(list(places), list(places.values()))
        if all(INTEGER.fullmatch(name) for name in places):
            return tuple(sorted(places, key=lambda name: (int(name), name)))
        return tuple(sorted(places))
