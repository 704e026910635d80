"""A table of texts as token ids, read some rows at a time: its texts are never all in memory."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, cast

import numpy as np

from resnorm_jax.data.dataset import Examples
from resnorm_jax.data.ragged import Ragged
from resnorm_jax.data.rows import Label, Rows
from resnorm_jax.data.tokenization import Tokenizer
from resnorm_jax.errors import UserError

PADDED = 2**26  # bytes of a split that are padded in memory; more stay as they lie


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
    """

    ids: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    cut: np.ndarray
    names: tuple[Label, ...]
    places: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def distinct(self) -> Rows:
        """A row for each different label, with the place of its first row."""
        return Rows([None] * len(self.names), self.names, self.places)

    def indices(self, classes: tuple[str, ...]) -> np.ndarray:
        """Return the labels as indices of classes, as `Rows.indices` does.

        Raises:
          UserError: a label is not among the classes.
        """
        return self.distinct.indices(classes, "the training rows")[self.labels]

    def examples(self, rows: np.ndarray, classes: tuple[str, ...]) -> Examples:
        """Return some of the rows, padded to their longest, with their labels' `indices`."""
        lengths = np.diff(self.offsets)[rows].astype(np.int32)
        x = Ragged(self.ids, self.offsets, rows, int(lengths.max()))
        small = 4 * x.shape[0] * x.shape[1] <= PADDED
        return Examples(
            x[:] if small else cast(np.ndarray, x), lengths, self.indices(classes)[rows]
        )


class Labelled:
    """The labels of rows as they come: numbers in memory, each different name once."""

    def __init__(self) -> None:
        self._codes, self._places = dict[Label, int](), list[str]()
        self._rows = array("i")

    def add(self, rows: Rows) -> None:
        """Take the labels of some rows, each of which has one."""
        for label, place in zip(rows.labels, rows.where, strict=True):
            code = self._codes.setdefault(label, len(self._codes))
            if code == len(self._places):
                self._places.append(place)
            self._rows.append(code)

    @property
    def arrays(self) -> tuple[np.ndarray, tuple[Label, ...], tuple[str, ...]]:
        """Labels ``[N]`` int32, their names, and the place of each name."""
        rows = np.frombuffer(self._rows, np.int32) if self._rows else np.zeros(0, np.int32)
        return rows, tuple(self._codes), tuple(self._places)


def read_labels(chunks: Iterable[Rows]) -> Encoded:
    """Return the rows of a file with their labels, but without tokens."""
    labelled = Labelled()
    for rows in chunks:
        labelled.add(rows)
    labels, names, places = labelled.arrays
    nothing = np.zeros(0, np.int32)
    return Encoded(nothing, np.zeros(len(labels) + 1, np.int64), labels, nothing, names, places)


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """Return the type in which a tokenizer's ids are kept."""
    return np.dtype(np.uint16 if len(tokenizer.names) <= 2**16 else np.int32)


def encode_chunks(
    chunks: Iterable[Rows],
    tokenizer: Tokenizer,
    keep: Callable[[np.ndarray], None],
    told: Callable[[int], None],
) -> Encoded:
    """Encode rows as they come.

    Args:
      chunks: of rows that have texts and labels.
      tokenizer: of their texts.
      keep: is given the ids of some rows at a time.
      told: is given the number of rows so far.

    Returns:
      All but the ``ids``, which are empty.

    Raises:
      UserError: for a text of which the tokenizer makes no token, and what reading raises.
    """
    labelled, kind = Labelled(), id_type(tokenizer)
    lengths, cut = array("i"), array("i")
    for rows in chunks:
        coded, lost = tokenizer.encode(rows.values)
        sizes = [len(ids) for ids in coded]
        if 0 in sizes:
            place = rows.where[sizes.index(0)]
            raise UserError(f"{place}: the tokenizer makes no token of the text; drop the row")
        keep(np.fromiter(chain.from_iterable(coded), kind, sum(sizes)))
        labelled.add(rows)
        lengths.extend(sizes)
        cut.extend(lost)
        told(len(cut))
    labels, names, places = labelled.arrays
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return Encoded(np.zeros(0, kind), offsets, labels, np.array(cut, np.int32), names, places)


def encode_in_memory(
    chunks: Iterable[Rows], tokenizer: Tokenizer, told: Callable[[int], None]
) -> Encoded:
    """Return the rows with their ids in memory; see `encode_chunks`."""
    parts = list[np.ndarray]()
    made = encode_chunks(chunks, tokenizer, parts.append, told)
    return replace(made, ids=np.concatenate([made.ids, *parts]))


def encode_to(
    file: IO[bytes], chunks: Iterable[Rows], tokenizer: Tokenizer, told: Callable[[int], None]
) -> Encoded:
    """Write the ids as an ``.npy`` file; return the rest; see `encode_chunks`."""
    kind = id_type(tokenizer)
    begin = _header(file, kind, 0)

    def keep(ids: np.ndarray) -> None:
        file.write(ids.data)

    made = encode_chunks(chunks, tokenizer, keep, told)
    file.seek(0)
    if _header(file, kind, int(made.offsets[-1])) != begin:  # numpy leaves room for the number
        raise ValueError("the header of an .npy file has grown")
    return made


def _header(file: IO[bytes], kind: np.dtype, count: int) -> int:
    """Write the header of an ``.npy`` file of so many ids; return where it ends."""
    header = {"descr": kind.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()
