"""The model behind a server: batches of few shapes, each compiled before the first request."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnorm_jax.build import kernel_and_stride
from resnorm_jax.data import Examples
from resnorm_jax.training.saved_run import Trained

Row = np.ndarray


def few(values: Sequence[int], most: int) -> tuple[int, ...]:
    """Return at most ``most`` of some ascending values, evenly, the last among them.

    >>> few([4, 8, 16, 32, 64], 3)
    (4, 16, 64)
    """
    if len(values) <= most:
        return tuple(values)
    places = np.linspace(len(values) - 1, 0, most).round().astype(int)
    return tuple(sorted({values[int(place)] for place in places}))


def batch_sizes(most: int) -> tuple[int, ...]:
    """Return the numbers of rows that are compiled for: 1, 4, 16, ... and ``most``.

    >>> batch_sizes(10)
    (1, 4, 10)
    """
    sizes = [1]
    while sizes[-1] * 4 < most:
        sizes.append(sizes[-1] * 4)
    return tuple(dict.fromkeys([*sizes, most]))


@dataclass(frozen=True)
class Buckets:
    """A run's model for rows of any length up to the last of ``lengths``.

    Attributes:
      trained: the run.
      lengths: padded lengths, ascending; one that is not read for images.
      sizes: numbers of rows, ascending.
      variables: of the model, on its device.
    """

    trained: Trained
    lengths: tuple[int, ...]
    sizes: tuple[int, ...]
    variables: Any

    @classmethod
    def of(cls, trained: Trained, batch: int, lengths: int) -> "Buckets":
        """Return those of a run: its own padded lengths, at most so many, to the longest it takes."""
        meta = trained.meta
        longest = trained.longest
        if meta["kind"] == "images":
            edges: tuple[int, ...] = (meta["shape"][0],)
        else:
            stride = kernel_and_stride(trained.config.model, meta)[1]
            cut = meta["encoding"].get("max_length", 0)  # where longer texts are
            longest = longest or -(-max(meta["max_length"], cut) // stride) * stride
            known = {e for e in trained.identity.edges or () if e < longest}
            edges = few([*sorted(known), longest], lengths)
        return cls(
            trained, edges, batch_sizes(batch), trained.parallel.replicate(trained.variables)
        )

    def warm(self, done: Callable[[int], None]) -> None:
        """Compile for every shape; ``done`` is told how many are."""
        for number, (size, length) in enumerate(self.shapes(), start=1):
            self.log_probs([self._row(length)] * size)
            done(number)

    def shapes(self) -> Iterator[tuple[int, int]]:
        """Yield what is compiled for: rows and positions."""
        for length in self.lengths:
            for size in self.sizes:
                yield size, length

    def _row(self, length: int) -> Row:
        kind, shape = self.trained.meta["kind"], self.trained.meta["shape"]
        whole = shape if kind == "images" else [length, *shape]
        return np.ones(whole, np.int32 if kind == "tokens" else np.float32)

    def rows(self, examples: Examples) -> list[Row]:
        """Return prepared rows without their padding."""
        if self.trained.meta["kind"] == "images":
            return list(examples.x)
        return [x[:n] for x, n in zip(examples.x, examples.lengths, strict=True)]

    def log_probs(self, rows: Sequence[Row]) -> np.ndarray:
        """Return log-probabilities ``[N, K]`` of at most ``sizes[-1]`` rows, in one batch."""
        size = next(s for s in self.sizes if s >= len(rows))
        filled = [*rows, *[rows[0]] * (size - len(rows))]
        return self.trained.parallel.predict(self.variables, self._batch(filled))[: len(rows)]

    def _batch(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        if self.trained.meta["kind"] == "images":
            return {"x": np.stack(rows)}
        lengths = np.array([len(row) for row in rows], np.int32)
        length = next(n for n in self.lengths if n >= lengths.max())
        x = np.zeros((len(rows), length, *rows[0].shape[1:]), rows[0].dtype)
        for target, row in zip(x, rows, strict=True):
            target[: len(row)] = row
        return {"x": x, "mask": np.arange(length) < lengths[:, None], "lengths": lengths}
