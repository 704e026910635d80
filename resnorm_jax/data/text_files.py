"""Rows of CSV and JSON-lines files: texts, numbers and labels; faults are told as ``file:line``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnorm_jax.data.csv_format import Row, read_csv_numbers, read_csv_table
from resnorm_jax.data.json_format import read_json_lines
from resnorm_jax.data.names import is_unicode, shown
from resnorm_jax.data.rows import Rows
from resnorm_jax.errors import UserError, nearest


@dataclass(frozen=True)
class Columns:
    """What to read from a table.

    Attributes:
      text: column of the text; None reads numbers.
      label: column of the label.
      labelled: whether the rows are to learn from: each has a text and a label.
    """

    text: str | None = None
    label: str = "label"
    labelled: bool = False


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


def text_cell(row: Row, column: str) -> str:
    """Return a row's text; raise a UserError when it is no string or holds only blanks."""
    value = cell(row, column, "data.text_column")
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


def _labels(rows: list[Row], columns: Columns) -> list[str | None]:
    """Return the labels, which may be missing or empty unless ``labelled``.

    Raises:
      UserError: see `label_cell`; also for two values that become one label: ``1`` and ``"1"``, or
        ``"a"`` and ``" a"``.
    """
    first: dict[str | None, tuple[object, str]] = {}
    labels: list[str | None] = []
    for row in rows:
        value = row[1].get(columns.label)
        given = columns.labelled or value not in (None, "")
        labels.append(label_cell(row, columns.label) if given else None)
        other, place = first.setdefault(labels[-1], (value, row[0]))
        if given and (type(other), other) != (type(value), value):
            raise UserError(
                f"{row[0]}: the label {shown(value)} would be one with {shown(other)} of {place}; "
                "write both the same, or use different names"
            )
    return labels


def _json_value(row: Row, columns: Columns) -> Any:
    if columns.text is not None and (columns.labelled or "x" not in row[1]):
        return text_cell(row, columns.text)
    if "x" not in row[1]:
        raise UserError(f'{row[0]}: no \'x\'; write {{"x": [...]}} (and "label" if known)')
    return row[1]["x"]


def read_json(path: str | Path, columns: Columns) -> Rows:
    """Read JSON lines: objects with a text, or with numbers or token ids as ``x``.

    Raises:
      UserError: see ``read_json_lines``; also for a missing or empty text, ``x`` or label, and for
        labels that only look different.
    """
    rows = read_json_lines(path)
    values = [_json_value(row, columns) for row in rows]
    return Rows(values, _labels(rows, columns), [where for where, _ in rows])


def read_csv(path: str | Path, columns: Columns) -> Rows:
    """Read CSV: texts under a header, or rows of numbers without header, a sequence a row.

    Raises:
      UserError: see ``read_csv_table``; also for a missing or empty text or label, for labels that
        only look different, and for what is no number.
    """
    if columns.text is None:
        numbers = read_csv_numbers(path)
        places, values = [where for where, _ in numbers], [value for _, value in numbers]
        return Rows(values, [None] * len(places), places)
    rows = read_csv_table(path)
    texts = [text_cell(row, columns.text) for row in rows]
    return Rows(texts, _labels(rows, columns), [where for where, _ in rows])
