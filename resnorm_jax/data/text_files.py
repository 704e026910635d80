"""CSV and JSON-lines files as rows with their line numbers, for faults told as ``file:line``."""

import csv
import io
import json
from pathlib import Path

from resnorm_jax.data.checks import read_text
from resnorm_jax.errors import UserError, nearest

Row = tuple[str, dict[str, object]]


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


TABLES = {".csv": read_csv_table, ".jsonl": read_json_lines, ".json": read_json_lines}


def read_rows(path: str | Path) -> list[Row]:
    """Read a table by its suffix (``.csv`` with a header, ``.jsonl``).

    Raises:
      UserError: unknown suffix, or see the readers.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in TABLES:
        raise UserError(f"{path}: suffix {suffix!r} is not read; give .csv (with header) or .jsonl")
    return TABLES[suffix](path)


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
