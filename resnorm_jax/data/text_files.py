"""Rows of texts, numbers and labels from files and folders, some at a time."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnorm_jax.data.arrow_format import SPLITS, STATE, parquet_table, saved_table, split_names
from resnorm_jax.data.cells import Labels, text_cell
from resnorm_jax.data.class_folder import folder_table
from resnorm_jax.data.csv_format import Row, csv_table, read_csv_numbers
from resnorm_jax.data.json_format import json_table
from resnorm_jax.data.rows import Label, Rows
from resnorm_jax.data.text_columns import Columns
from resnorm_jax.errors import UserError

CHUNK_ROWS = 1000
CHUNK_CHARACTERS = 2**20


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
    made: list[tuple[Any, Label, str]] = []
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


def _together(rows: Iterable[tuple[Any, Label, str]]) -> Rows:
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
    if columns.many:
        raise UserError(
            f"{path}: a text of a folder has one label, not data.labels=many; give a file"
        )
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
    return joined(read_chunks(path, columns))


def joined(chunks: Iterable[Rows]) -> Rows:
    """Return the rows of all chunks."""
    made = list(chunks)
    return Rows(
        [value for chunk in made for value in chunk.values],
        [label for chunk in made for label in chunk.labels],
        [place for chunk in made for place in chunk.where],
    )
