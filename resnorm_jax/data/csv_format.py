"""CSV with line numbers: rows, tables under a header, and rows of numbers."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnorm_jax.data.files import LONGEST_LINE, read_text
from resnorm_jax.data.names import shown
from resnorm_jax.data.plain_numbers import is_plain
from resnorm_jax.errors import UserError

Row = tuple[str, dict[str, object]]
EXACT = 2.0**53  # whole numbers up to here are exact as float64


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be as long as lines may be: the csv module stops at 131,072 characters."""
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


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
        with _long_fields():
            for fields in reader:
                if fields:
                    rows.append((f"{path}:{begin}", fields))
                begin = reader.line_num + 1
    except csv.Error as error:
        fix = "cut the text" if "limit" in str(error) else "check the quotes"
        raise UserError(f"{path}:{begin}: not CSV ({error}); {fix}") from error
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
        raise UserError(f"{place}: a column name occurs twice in {shown(header, 200)}; rename one")
    if not rows:
        raise UserError(f"{place}: a header but no row; give at least one row")
    for where, fields in rows:
        if len(fields) != len(header):
            raise UserError(
                f"{where}: {len(fields)} fields, the header has {len(header)}; "
                "quote texts that contain commas"
            )
    return [(where, dict(zip(header, fields, strict=True))) for where, fields in rows]


def read_csv_numbers(path: str | Path) -> list[tuple[str, list[float]]]:
    """Read rows of numbers without a header.

    Returns:
      ``(file:line, numbers)`` of each line that is not blank; whole numbers are integers.

    Raises:
      UserError: see ``read_csv_rows``; also for what is no number.
    """
    return [(where, _numbers(where, fields)) for where, fields in read_csv_rows(path)]


def _numbers(where: str, fields: list[str]) -> list[float]:
    fix = "write rows of numbers without header, one series a row"
    for column, field in enumerate(fields, start=1):
        if not is_plain(field):
            raise UserError(f"{where}: {shown(field)} in column {column} is no number; {fix}")
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise UserError(f"{where}: {str(error)[:100]}; {fix}") from error
    return [int(v) if v.is_integer() and abs(v) <= EXACT else v for v in values]
