"""CSV and TSV with line numbers: rows, tables under a header, and rows of numbers."""

import csv
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnorm_jax.data.files import LONGEST_LINE, check_size, file_fault
from resnorm_jax.data.names import shown
from resnorm_jax.data.plain_numbers import is_plain
from resnorm_jax.data.text_lines import text_lines
from resnorm_jax.errors import UserError

Row = tuple[str, dict[str, object]]
QUOTING: dict[bool, Literal[0, 3]] = {True: csv.QUOTE_MINIMAL, False: csv.QUOTE_NONE}
EXACT = 2.0**53  # whole numbers up to here are exact as float64


@dataclass(frozen=True)
class Form:
    """How a table is written as text.

    Attributes:
      delimiter: between fields.
      quotes: whether ``"`` encloses a field, and ``""`` is one inside; else it is a character.
      header: whether the first line names the columns.
      encoding: of the file.
    """

    delimiter: str = ","
    quotes: bool = True
    header: bool = True
    encoding: str = "utf-8"

    @property
    def name(self) -> str:
        """The format's name."""
        return "TSV" if self.delimiter == "\t" else "CSV"

    @property
    def separators(self) -> str:
        """What stands between fields, in a message."""
        return "tabs" if self.delimiter == "\t" else "commas"

    @property
    def first(self) -> str:
        """What the first line is, in a message."""
        return "header" if self.header else "first row"


COMMAS = Form()
TABS = Form("\t")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be as long as lines may be: the csv module stops at 131,072 characters."""
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def csv_rows(
    path: str | Path, form: Form = COMMAS, fix: str = "check the quotes"
) -> Iterator[tuple[str, list[str]]]:
    """Yield ``(file:line, fields)`` of each line that is not blank; the line is where the row begins.

    Raises:
      UserError: see `resnorm_jax.data.text_lines.text_lines`; also for what is not CSV.
    """
    lines = text_lines(path, form.encoding)
    reader = csv.reader(lines, strict=True, delimiter=form.delimiter, quoting=QUOTING[form.quotes])
    begin = 1
    try:
        while True:
            with _long_fields():
                fields = next(reader, None)
            if fields is None:
                return
            if fields:
                yield f"{path}:{begin}", fields
            begin = reader.line_num + 1
    except csv.Error as error:
        fix = "cut the text" if "limit" in str(error) else fix
        raise UserError(f"{path}:{begin}: not {form.name} ({error}); {fix}") from error


def csv_table(path: str | Path, form: Form = COMMAS) -> Iterator[Row]:
    """Yield ``(file:line, {column: text})`` of each row; without a header the columns are 1, 2, ...

    Raises:
      UserError: see `csv_rows`; also a column twice, no row, or a wrong number of fields.
    """
    rows = csv_rows(path, form, "check the quotes, or set data.quotes=false")
    place, header = next(rows)  # a file that is nothing but blanks was refused
    if form.header:
        _check_header(place, header)
    else:
        rows = itertools.chain([(place, header)], rows)
        header = [str(i) for i in range(1, len(header) + 1)]
    empty = True
    for where, fields in rows:
        if len(fields) != len(header):
            raise UserError(
                f"{where}: {len(fields)} fields, the {form.first} has {len(header)}; "
                f"quote texts that contain {form.separators}"
            )
        empty = False
        yield where, dict(zip(header, fields, strict=True))
    if empty:
        raise UserError(f"{place}: a header but no row; give at least one row")


def _check_header(place: str, header: list[str]) -> None:
    if len(set(header)) < len(header):
        raise UserError(f"{place}: a column name occurs twice in {shown(header, 200)}; rename one")


def read_csv_numbers(path: str | Path, form: Form = COMMAS) -> list[tuple[str, list[float]]]:
    """Read rows of numbers without a header.

    Returns:
      ``(file:line, numbers)`` of each line that is not blank; whole numbers are integers.

    Raises:
      UserError: see `csv_rows`; also for what is no number.
    """
    if not file_fault(path):
        check_size(path)
    return [(where, _numbers(where, fields)) for where, fields in csv_rows(path, form)]


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
