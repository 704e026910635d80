"""A row's text and label, checked; faults are told with the row's place."""

from resnorm_jax.data.csv_format import Row
from resnorm_jax.data.names import is_unicode, shown
from resnorm_jax.data.text_columns import Columns
from resnorm_jax.errors import UserError, nearest


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
