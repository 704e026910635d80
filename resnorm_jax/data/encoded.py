"""A table of texts as token ids, read some rows at a time: its texts are never all in memory."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, cast

import numpy as np

from resnorm_jax.data.dataset import Examples
from resnorm_jax.data.ragged import Ragged
from resnorm_jax.data.row_arrays import MEMORY, Store, index_type, indices, parts_of
from resnorm_jax.data.rows import Label, Rows
from resnorm_jax.data.tokenization import Tokenizer
from resnorm_jax.errors import UserError

PADDED = 2**26  # bytes of a split that are padded in memory; more stay as they lie
ARRAYS = ("ids", "offsets", "labels", "cut")
Keep = Callable[[str, np.ndarray], None]
Names = tuple[tuple[Label, ...], tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Encoded:
    """The rows of a file.

    Attributes:
      ids: ``[T]`` token ids of all rows, one after another, uint16 or int32.
      offsets: ``[N + 1]`` int64: row ``i`` is ``ids[offsets[i]:offsets[i + 1]]``.
      labels: ``[N]`` int32, which of ``names`` is a row's label.
      cut: ``[N]`` int32, tokens of a row that were cut off.
      names: different labels, in the order of their first rows; or different sets of labels, each a
        tuple, where a row has any number of them.
      places: ``file:line`` of these rows.
      store: where arrays of a number a row are kept that are made of these.
    """

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    cut: np.ndarray
    names: tuple[Label, ...]
    places: tuple[str, ...]
    store: Store = MEMORY

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def distinct(self) -> Rows:
        """A row for each different label, with the place of its first row."""
        return Rows([None] * len(self.names), self.names, self.places)

    @property
    def every(self) -> np.ndarray:
        """Indices of all rows."""
        count = len(self)
        return self.store.keep(lambda: indices(count), count, index_type(count))

    def indices(self, classes: tuple[str, ...], rows: np.ndarray | None = None) -> np.ndarray:
        """Return the labels of some rows, or of all, as indices of classes, as `Rows.indices` does.

        Raises:
          UserError: a label is not among the classes.
        """
        known = self.distinct.indices(classes, "the training rows")
        count = len(self) if rows is None else len(rows)
        return self.store.keep(
            lambda: (known[labels] for labels in self._parts(self.labels, rows)),
            count * known[:1].size,
            known.dtype,
        )

    def _parts(self, array: np.ndarray, rows: np.ndarray | None) -> Iterator[np.ndarray]:
        return parts_of(array) if rows is None else (array[part] for part in parts_of(rows))

    def sizes(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield how many tokens these rows have, block by block, int32."""
        for part in parts_of(rows):
            yield (self.offsets[part + 1] - self.offsets[part]).astype(np.int32)

    def examples(self, rows: np.ndarray, classes: tuple[str, ...]) -> Examples:
        """Return some of the rows, padded to their longest, with their labels' `indices`."""
        lengths = self.store.keep(lambda: self.sizes(rows), len(rows), np.int32)
        x = Ragged(self.ids, self.offsets, rows, int(lengths.max()), self.store)
        small = 4 * x.shape[0] * x.shape[1] <= PADDED
        y = self.indices(classes, rows)
        return Examples(x[:] if small else cast(np.ndarray, x), lengths, y)


class Labelled:
    """Different labels by number, in the order in which they come, each with its first place."""

    def __init__(self) -> None:
        self._codes, self._places = dict[Label, int](), list[str]()

    def codes(self, rows: Rows) -> np.ndarray:
        """Return the numbers ``[N]`` int32 of the labels of some rows, each of which has one."""
        found = array("i")
        for label, place in zip(rows.labels, rows.where, strict=True):
            code = self._codes.setdefault(label, len(self._codes))
            if code == len(self._places):
                self._places.append(place)
            found.append(code)
        return np.array(found, np.int32)

    @property
    def names(self) -> Names:
        """The labels by number, and the place of each."""
        return tuple(self._codes), tuple(self._places)


def read_labels(chunks: Iterable[Rows]) -> Encoded:
    """Return the rows of a file with their labels, but without tokens."""
    labelled, nothing = Labelled(), np.zeros(0, np.int32)
    labels = np.concatenate([nothing, *(labelled.codes(rows) for rows in chunks)])
    return Encoded(nothing, np.zeros(1, np.int64), labels, nothing, *labelled.names)


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """Return the type in which a tokenizer's ids are kept."""
    return np.dtype(np.uint16 if len(tokenizer.names) <= 2**16 else np.int32)


def types(tokenizer: Tokenizer) -> dict[str, np.dtype]:
    """Return the types of the `ARRAYS` of an `Encoded`."""
    kinds = (id_type(tokenizer), np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.int32))
    return dict(zip(ARRAYS, kinds, strict=True))


def encode_chunks(
    chunks: Iterable[Rows], tokenizer: Tokenizer, keep: Keep, told: Callable[[int], None]
) -> Names:
    """Encode rows as they come.

    Args:
      chunks: of rows that have texts and labels.
      tokenizer: of their texts.
      keep: is given what some rows add to each of the `ARRAYS`, by its name.
      told: is given the number of rows so far.

    Returns:
      The ``names`` and ``places`` of an `Encoded`.

    Raises:
      UserError: for a text of which the tokenizer makes no token, and what reading raises.
    """
    labelled, kind, count, total = Labelled(), id_type(tokenizer), 0, 0
    keep("offsets", np.zeros(1, np.int64))
    for rows in chunks:
        coded, lost = tokenizer.encode(rows.values)
        sizes = [len(ids) for ids in coded]
        if 0 in sizes:
            place = rows.where[sizes.index(0)]
            raise UserError(f"{place}: the tokenizer makes no token of the text; drop the row")
        ends = total + np.cumsum(sizes, dtype=np.int64)
        keep("ids", np.fromiter(chain.from_iterable(coded), kind, sum(sizes)))
        keep("offsets", ends)
        keep("labels", labelled.codes(rows))
        keep("cut", np.array(lost, np.int32))
        count, total = count + len(sizes), int(ends[-1])
        told(count)
    return labelled.names


def encode_in_memory(
    chunks: Iterable[Rows], tokenizer: Tokenizer, told: Callable[[int], None]
) -> Encoded:
    """Return the rows in memory; see `encode_chunks`."""
    parts = {name: [np.zeros(0, kind)] for name, kind in types(tokenizer).items()}
    names, places = encode_chunks(
        chunks, tokenizer, lambda name, part: parts[name].append(part), told
    )
    made = {name: np.concatenate(parts[name]) for name in ARRAYS}
    return Encoded(**made, names=names, places=places, store=MEMORY)


def encode_to(
    folder: Path, chunks: Iterable[Rows], tokenizer: Tokenizer, told: Callable[[int], None]
) -> Names:
    """Write each of the `ARRAYS` as an ``.npy`` file of its name; see `encode_chunks`."""
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(_NpyFile(folder / f"{name}.npy", kind))
            for name, kind in types(tokenizer).items()
        }
        return encode_chunks(chunks, tokenizer, lambda name, part: files[name].add(part), told)


class _NpyFile:
    """An ``.npy`` file of one axis that is written part by part."""

    def __init__(self, path: Path, kind: np.dtype) -> None:
        self._file: IO[bytes] = open(path, "wb")  # noqa: SIM115
        self._kind, self._count = kind, 0
        self._begin = self._header()

    def __enter__(self) -> "_NpyFile":
        return self

    def add(self, part: np.ndarray) -> None:
        """Write what comes next."""
        self._file.write(np.ascontiguousarray(part, self._kind).data)
        self._count += len(part)

    def __exit__(self, error: type[BaseException] | None, *more: object) -> None:
        with self._file as file:
            if error is None:
                file.seek(0)
                if self._header() != self._begin:  # numpy leaves room for the number
                    raise ValueError("the header of an .npy file has grown")

    def _header(self) -> int:
        """Write the header for so many numbers; return where it ends."""
        header = {"descr": self._kind.str, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self._file.tell()
