"""Rows of token ids that lie one after another, perhaps on a disk, and read as a padded array."""

from typing import Any

import numpy as np

from resnorm_jax.data.row_arrays import MEMORY, Store, forget, parts_of

KEPT = 2**26  # bytes of the disk's pages that may stay in memory
AROUND = 2**16  # bytes that the system maps at once, however few are read


class Ragged:
    """Rows ``[N, L]`` of token ids with zeros at the end, made when they are asked for.

    Args:
      ids: ``[T]``, the ids of all rows of a file; an array in memory or a memory map.
      offsets: ``[M + 1]``: row ``i`` of the file is ``ids[offsets[i]:offsets[i + 1]]``.
      rows: ``[N]``, which rows of the file these are.
      width: ``L``, at least the longest row's length.
      store: where arrays of a number a row are kept that are made of these.

    It is indexed by rows, or by rows and a slice of positions, as an array would be; and
    ``numpy.asarray`` makes all of it.
    """

    ndim = 2
    dtype = np.dtype(np.int32)

    def __init__(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        rows: np.ndarray,
        width: int,
        store: Store = MEMORY,
    ) -> None:
        self.ids, self.offsets, self.rows, self.store = ids, offsets, rows, store
        self.shape = (len(rows), width)
        self._read = 0

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray) -> "Ragged":
        """Return the rows at these indices, of the same width, without reading them."""
        kept = self.store.keep(
            lambda: (self.rows[part] for part in parts_of(rows)), len(rows), self.rows.dtype
        )
        return Ragged(self.ids, self.offsets, kept, self.shape[1], self.store)

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, positions = key if isinstance(key, tuple) else (key, slice(None))
        chosen = self.rows[rows]
        padded = self._padded(np.atleast_1d(chosen), positions)
        return padded if np.ndim(chosen) else padded[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _padded(self, rows: np.ndarray, positions: slice) -> np.ndarray:
        start, stop, step = positions.indices(self.shape[1])
        x = np.zeros((len(rows), max(stop - start, 0)), self.dtype)
        for target, begin, end in zip(x, self.offsets[rows], self.offsets[rows + 1], strict=True):
            values = self.ids[begin + start : min(begin + stop, end)]
            target[: len(values)] = values
            self._read += max(values.nbytes, AROUND)
        self._forget()
        return x[:, ::step]

    def _forget(self) -> None:
        """Let go of pages of the disk that were read: they would count as this process's memory."""
        if self._read > KEPT:
            forget(self.ids, self.offsets, self.rows)
            self._read = 0
