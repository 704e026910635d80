"""Rows of texts, numbers and labels from files and folders; faults are told as ``file:line``."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resnorm_jax.data.arrow_format import (
    SPLITS,
    STATE,
    parquet_table,
    placed,
    saved_table,
    split_names,
)
from resnorm_jax.data.class_folder import folder_table
from resnorm_jax.data.csv_format import COMMAS, Form, Row, csv_table, read_csv_numbers
from resnorm_jax.data.json_format import json_table
from resnorm_jax.data.names import is_unicode, shown
from resnorm_jax.data.rows import Rows
from resnorm_jax.errors import UserError, nearest

CHUNK_ROWS = 1000
CHUNK_CHARACTERS = 2**20


@dataclass(frozen=True)
class Columns:
    """What to read from a table.

    Attributes:
      text: column of the text; None reads numbers.
      label: column of the label.
      labelled: whether the rows are to learn from: each has a text and a label.
      pair: column of a second text; "" where a row is one text.
      form: how CSV, TSV and text files are written.
    """

    text: str | None = None
    label: str = "label"
    labelled: bool = False
    pair: str = ""
    form: Form = COMMAS

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return tuple(name for name in (self.text or "x", self.pair, self.label) if name)

    def named(self, header: Iterable[str]) -> "Columns":
        """Return the columns by name, where a place was given for one."""
        names = list(header)
        text = None if self.text is None else placed(self.text, names)
        pair, label = placed(self.pair, names), placed(self.label, names)
        return replace(self, text=text, pair=pair, label=label)


def columns_of(options: Any, labelled: bool) -> Columns:
    """Return the columns that a source's options name."""
    form = Form(header=options.header, quotes=options.quotes, encoding=options.encoding)
    return Columns(options.text_column, options.label_column, labelled, options.pair_column, form)


def kept_columns(options: Any) -> dict[str, Any]:
    """Return what metadata keep of the columns: what is not the default, and the names."""
    kept: dict[str, Any] = {
        "text_column": options.text_column,
        "label_column": options.label_column,
    }
    if options.pair_column:
        kept["pair_column"] = options.pair_column
    form = columns_of(options, labelled=True).form
    return kept if form == COMMAS else {**kept, "form": asdict(form)}


def saved_columns(encoding: Mapping[str, Any]) -> Columns:
    """Return the columns of metadata, for rows to predict; an empty one reads numbers."""
    if not encoding:
        return Columns()
    text, label = encoding.get("text_column", "text"), encoding.get("label_column", "label")
    form = Form(**encoding.get("form", {}))
    return Columns(text, label, False, encoding.get("pair_column", ""), form)


def cell(row: Row, column: str, field: str) -> object:
    """Return a row's value; raise a UserError when there is none, with the nearest column."""
    where, values = row
    if column not in values:
        raise UserError(
            f"{where}: no column {column!r} ({field}); {nearest(column, map(str, values))}"
        )
    if values[column] is None:
        raise UserError(f"{where}: {column!r} is null ({field}); give a value or drop the row")
    return values[column]


def text_cell(row: Row, column: str, field: str = "data.text_column") -> str:
    """Return a row's text; raise a UserError when it is no string or holds only blanks."""
    value = cell(row, column, field)
    if not isinstance(value, str) or not value.strip():
        what = "empty text" if isinstance(value, str) else f"{shown(value)} is no text"
        raise UserError(f"{row[0]}: {what} in column {column!r}; give a text or drop the row")
    if not is_unicode(value):
        raise UserError(f"{row[0]}: broken Unicode (a lone surrogate) in column {column!r}")
    return value


def label_cell(row: Row, column: str) -> str:
    """Return a row's label as a string; raise a UserError when it is neither text nor integer."""
    value = cell(row, column, "data.label_column")
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise UserError(
            f"{row[0]}: {shown(value)} in column {column!r} is no label; give a name or an integer"
        )
    if isinstance(value, str) and not is_unicode(value):
        raise UserError(f"{row[0]}: broken Unicode (a lone surrogate) in column {column!r}")
    return str(value).strip()


class Labels:
    """The labels of a table, row by row, which may be missing or empty unless ``labelled``."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._first: dict[str | None, tuple[object, str]] = {}
        self._kinds: dict[type, tuple[object, str]] = {}

    def of(self, row: Row) -> str | None:
        """Return a row's label.

        Raises:
          UserError: see `label_cell`; also for two values that become one label: ``1`` and ``"1"``, or
            ``"a"`` and ``" a"``; and for names among whole numbers.
        """
        columns, (where, values) = self._columns, row
        value = values.get(columns.label)
        if not columns.labelled and value in (None, ""):
            return None
        label = label_cell(row, columns.label)
        other, place = self._first.setdefault(label, (value, where))
        if (type(other), other) != (type(value), value):
            raise UserError(
                f"{where}: the label {shown(value)} would be one with {shown(other)} of {place}; "
                "write both the same, or use different names"
            )
        self._kinds.setdefault(type(value), (value, where))
        if len(self._kinds) > 1:
            other, place = next(iter(self._kinds.values()))
            raise UserError(
                f"{where}: the label {shown(value)} is {_kind(value)}, {shown(other)} of {place} is "
                f"{_kind(other)}; write all labels as names, or all as whole numbers"
            )
        return label


def _kind(value: object) -> str:
    return "a whole number" if isinstance(value, int) else "a name"


def _value(row: Row, columns: Columns) -> Any:
    if columns.text is not None and (columns.labelled or "x" not in row[1]):
        text = text_cell(row, columns.text)
        pair = columns.pair
        return (text, text_cell(row, pair, "data.pair_column")) if pair else text
    if "x" not in row[1]:
        raise UserError(f'{row[0]}: no \'x\'; write {{"x": [...]}} (and "label" if known)')
    return row[1]["x"]


def _chunks(rows: Iterable[Row], columns: Columns) -> Iterator[Rows]:
    """Yield the rows, so many at a time that they take little memory."""
    labels: Labels | None = None
    made: list[tuple[Any, str | None, str]] = []
    size = 0
    for row in rows:
        if labels is None:
            columns = columns.named(row[1])
            labels = Labels(columns)
        made.append((_value(row, columns), labels.of(row), row[0]))
        size += _characters(made[-1][0])
        if len(made) == CHUNK_ROWS or size >= CHUNK_CHARACTERS:
            yield _together(made)
            made, size = [], 0
    if made:
        yield _together(made)


def _characters(value: Any) -> int:
    """Return how long a row's text or texts are; 1 for what is no text."""
    texts = value if isinstance(value, tuple) else (value,)
    return sum(len(text) if isinstance(text, str) else 1 for text in texts)


def _together(rows: Iterable[tuple[Any, str | None, str]]) -> Rows:
    values, labels, where = map(list, zip(*rows, strict=True))
    return Rows(values, labels, where)


DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLES: dict[str, Callable[[Path, Columns], Iterator[Row]]] = {
    ".csv": lambda path, columns: csv_table(path, columns.form),
    ".tsv": lambda path, columns: csv_table(path, replace(columns.form, delimiter="\t")),
    ".jsonl": lambda path, columns: json_table(path, columns.form.encoding),
    ".json": lambda path, columns: json_table(path, columns.form.encoding),
    ".parquet": lambda path, columns: parquet_table(path, columns.used),
}


def _folder(path: Path, columns: Columns) -> Iterator[Row]:
    if (path / STATE).is_file():
        return saved_table(path, columns.used)
    if (path / SPLITS).is_file():
        names = ", ".join(split_names(path))
        raise UserError(f"{path}: a dictionary of data sets; give the folder of one: {names}")
    if columns.pair:
        raise UserError(f"{path}: a folder of texts has no pairs; give a file")
    return folder_table(path, str(columns.text), columns.label, columns.form.encoding)


def read_chunks(path: str | Path, columns: Columns) -> Iterator[Rows]:
    """Read a table of texts, or of ``x`` in JSON lines, some rows at a time.

    A file is read by its suffix; a folder is a saved data set if it holds ``state.json``, else it holds
    a folder a class.

    Raises:
      UserError: unknown suffix, or see the readers; also for a missing or empty text, ``x`` or label,
        and for labels that only look different.
    """
    path = Path(path)
    if os.path.isdir(path) and columns.text is not None:
        return _chunks(_folder(path, columns), columns)
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        raise UserError(
            f"{path}: suffix {suffix!r} is not read; give .csv or .tsv (with a header), .jsonl, "
            ".parquet, or a folder"
        )
    return _chunks(TABLES[suffix](path, columns), columns)


def read_rows(path: str | Path, columns: Columns) -> Rows:
    """Read a table whole: texts, or rows of numbers (``x`` in JSON, or CSV without a header).

    Raises:
      UserError: see `read_chunks`; also for what is no number.
    """
    delimiter = DELIMITERS.get(Path(path).suffix.lower())
    if columns.text is None and delimiter:
        numbers = read_csv_numbers(path, replace(columns.form, delimiter=delimiter))
        return Rows([v for _, v in numbers], [None] * len(numbers), [w for w, _ in numbers])
    made = list(read_chunks(path, columns))
    return Rows(
        [value for chunk in made for value in chunk.values],
        [label for chunk in made for label in chunk.labels],
        [place for chunk in made for place in chunk.where],
    )
