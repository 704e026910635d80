"""Arrays of a number a row, where rows are many: worked on in blocks, and kept in files.

What is here gives what NumPy's own functions give, bit for bit. They would copy all rows several
times, 8 bytes a row each time.
"""

import logging
import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK = 2**16  # rows at a time
SMALL = 2**20  # bytes of an array that stays in memory
Parts = Callable[[], Iterable[np.ndarray]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Store:
    """Where arrays of a number a row are kept.

    Attributes:
      folder: for files without a name, which are gone with the process; None keeps arrays in memory.
    """

    folder: Path | None = None

    def keep(self, parts: Parts, count: int, dtype: np.dtype | type) -> np.ndarray:
        """Return the parts as one array: in memory if it is small, else a read-only memory map.

        Args:
          parts: gives the parts, each time from the first on, all of one shape but for the first axis.
          count: of their numbers together.
          dtype: of the array.
        """
        kind = np.dtype(dtype)
        if self.folder is not None and count * kind.itemsize > SMALL:
            try:
                return _in_file(self.folder, parts(), kind)
            except OSError as error:
                log.warning("%s: cannot be written (%s); going on in memory", self.folder, error)
        return np.concatenate([part.astype(kind, copy=False) for part in parts()])


def _in_file(folder: Path, parts: Iterable[np.ndarray], kind: np.dtype) -> np.ndarray:
    shape: tuple[int, ...] = ()
    rows = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            file.write(np.ascontiguousarray(part, kind).data)
            shape, rows = part.shape[1:], rows + len(part)
        file.flush()
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray((rows, *shape), kind, pages)


MEMORY = Store()


def forget(*arrays: np.ndarray) -> None:
    """Let go of the pages of memory maps: they would count as this process's memory.

    Nothing is lost: they are read again when they are needed.
    """
    for array in arrays:
        base: object = array
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap) and hasattr(base, "madvise"):
            base.madvise(mmap.MADV_DONTNEED)


def index_type(count: int) -> np.dtype:
    """Return the type of indices of so many rows."""
    return np.dtype(np.int32 if count < 2**31 else np.int64)


def blocks(count: int) -> Iterator[slice]:
    """Yield slices of at most `BLOCK` rows, one after another; an empty one where there are no rows."""
    starts = range(0, max(count, 1), BLOCK)
    return (slice(start, min(start + BLOCK, count)) for start in starts)


def parts_of(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the blocks of an array; its pages are let go when all are read."""
    for block in blocks(len(array)):
        yield array[block]
    forget(array)


def indices(count: int) -> Iterator[np.ndarray]:
    """Yield ``numpy.arange(count)``, block by block."""
    for block in blocks(count):
        yield np.arange(block.start, block.stop, dtype=index_type(count))


def where(mask: np.ndarray) -> np.ndarray:
    """Return the indices of the rows of a mask ``[N]``, ascending."""
    found = np.empty(np.count_nonzero(mask), index_type(len(mask)))
    done = 0
    for block in blocks(len(mask)):
        inside = np.flatnonzero(mask[block])
        found[done : done + len(inside)] = inside + block.start
        done += len(inside)
    return found


def counts(values: np.ndarray, size: int = 0) -> np.ndarray:
    """Return how often each of 0, 1, ... occurs, ``numpy.bincount(values, minlength=size)``."""
    found = np.zeros(size, np.int64)
    for part in parts_of(values):
        more = np.bincount(part, minlength=len(found))
        more[: len(found)] += found
        found = more
    return found


def distinct(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different values, ascending, and how often each occurs, as ``numpy.unique``."""
    known, often = np.unique(values[:0], return_counts=True)
    for part in parts_of(values):
        more, count = np.unique(part, return_counts=True)
        known, at = np.unique(np.concatenate([known, more]), return_inverse=True)
        often = np.bincount(at, weights=np.concatenate([often, count])).astype(np.int64)
    return known, often


def shuffled(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``rng.permutation(count)``, the same order in 4 bytes a row."""
    order = np.arange(count, dtype=index_type(count))
    rng.shuffle(order)
    return order
