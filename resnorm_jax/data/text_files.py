"""CSV and JSON-lines files, read with their line numbers: faults are told as ``file:line``."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnorm_jax.data.checks import read_text
from resnorm_jax.data.rows import Rows
from resnorm_jax.errors import UserError, nearest

Row = tuple[str, dict[str, object]]


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


def read_csv_rows(path: str | Path) -> list[tuple[str, list[str]]]:
    """Read a CSV file.

    Returns:
      ``(file:line, fields)`` of each line that is not blank; the line is where the row begins.

    Raises:
      UserError: the file is missing, empty, not UTF-8, or not CSV.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows, begin = [], 1
    try:
        for fields in reader:
            if fields:
                rows.append((f"{path}:{begin}", fields))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{begin}: not CSV ({error}); check the quotes") from error
    return rows


def read_csv_table(path: str | Path) -> list[Row]:
    """Read a CSV file with a header line.

    Returns:
      ``(file:line, {column: text})`` of each row.

    Raises:
      UserError: see ``read_csv_rows``; also a column twice, no row, or a wrong number of fields.
    """
    (place, header), *rows = read_csv_rows(path)
    if len(set(header)) < len(header):
        raise UserError(f"{place}: a column name occurs twice in {header}; rename one")
    if not rows:
        raise UserError(f"{place}: a header but no row; give at least one row")
    for where, fields in rows:
        if len(fields) != len(header):
            raise UserError(
                f"{where}: {len(fields)} fields, the header has {len(header)}; "
                "quote texts that contain commas"
            )
    return [(where, dict(zip(header, fields, strict=True))) for where, fields in rows]


def read_json_lines(path: str | Path) -> list[Row]:
    """Read a file with one JSON object a line.

    Returns:
      ``(file:line, object)`` of each line that is not blank.

    Raises:
      UserError: the file is missing, empty, not UTF-8, or a line is no JSON object.
    """
    rows: list[Row] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path}:{number}: malformed JSON at column {error.colno} ({error.msg}); "
                "write one JSON object a line"
            ) from error
        if not isinstance(value, dict):
            raise UserError(
                f"{path}:{number}: a JSON {type(value).__name__}, not an object; "
                'write one object a line, e.g. {"text": "...", "label": "..."}'
            )
        rows.append((f"{path}:{number}", value))
    return rows


def cell(row: Row, column: str, field: str) -> object:
    """Return a row's value; raise a UserError naming the nearest column when there is none."""
    where, values = row
    if column not in values or values[column] is None:
        raise UserError(
            f"{where}: no column {column!r} ({field}); {nearest(column, map(str, values))}"
        )
    return values[column]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_cell(row: Row, column: str) -> str:
    """Return a row's text; raise a UserError when it is no string or holds only blanks."""
    value = cell(row, column, "data.text_column")
    if not isinstance(value, str) or not value.strip():
        what = "empty text" if isinstance(value, str) else f"{value!r} is no text"
        raise UserError(f"{row[0]}: {what} in column {column!r}; give a text or drop the row")
    if not _is_unicode(value):
        raise UserError(f"{row[0]}: broken Unicode (a lone surrogate) in column {column!r}")
    return value


def label_cell(row: Row, column: str) -> str:
    """Return a row's label as a string; raise a UserError when it is neither text nor integer."""
    value = cell(row, column, "data.label_column")
    if not isinstance(value, str | int) or not str(value).strip():
        raise UserError(
            f"{row[0]}: {value!r} in column {column!r} is no label; give a name or an integer"
        )
    return str(value).strip()


def _rows(rows: list[Row], values: list[Any], columns: Columns) -> Rows:
    """Return the rows with their labels, which may be missing or empty unless ``labelled``."""
    labels = [
        label_cell(row, columns.label)
        if columns.labelled or row[1].get(columns.label) not in (None, "")
        else None
        for row in rows
    ]
    return Rows(values, labels, [where for where, _ in rows])


def _json_value(row: Row, columns: Columns) -> Any:
    if columns.text is not None and (columns.labelled or "x" not in row[1]):
        return text_cell(row, columns.text)
    if "x" not in row[1]:
        raise UserError(f'{row[0]}: no \'x\'; write {{"x": [...]}} (and "label" if known)')
    return row[1]["x"]


def _csv_numbers(where: str, fields: list[str]) -> list[float]:
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise UserError(
            f"{where}: {error}; write rows of numbers without header, one series a row"
        ) from error
    return [int(v) if v.is_integer() else v for v in values]


def read_json(path: str | Path, columns: Columns) -> Rows:
    """Read JSON lines: objects with a text, or with numbers or token ids as ``x``.

    Raises:
      UserError: see ``read_json_lines``; also for a missing or empty text, ``x`` or label.
    """
    rows = read_json_lines(path)
    return _rows(rows, [_json_value(row, columns) for row in rows], columns)


def read_csv(path: str | Path, columns: Columns) -> Rows:
    """Read CSV: texts under a header, or rows of numbers without header, a sequence a row.

    Raises:
      UserError: see ``read_csv_table``; also for a missing or empty text or label, and for what is
        no number.
    """
    if columns.text is None:
        numbers = [(where, _csv_numbers(where, fields)) for where, fields in read_csv_rows(path)]
        places, values = [where for where, _ in numbers], [value for _, value in numbers]
        return Rows(values, [None] * len(places), places)
    rows = read_csv_table(path)
    return _rows(rows, [text_cell(row, columns.text) for row in rows], columns)
