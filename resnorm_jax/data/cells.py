"""A row's text and label, checked; faults are told with the row's place."""

from itertools import pairwise

from resnorm_jax.data.csv_format import Row
from resnorm_jax.data.names import is_unicode, shown
from resnorm_jax.data.rows import Label
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
    return label_of(row[0], column, cell(row, column, "data.label_column"))


def label_of(where: str, column: str, value: object) -> str:
    """Return a value of a column as a label; see `label_cell`."""
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        many = "; or set data.labels=many" if isinstance(value, list) else ""
        raise UserError(
            f"{where}: {shown(value)} in column {column!r} is no label; give a name or an integer{many}"
        )
    if isinstance(value, str) and not is_unicode(value):
        raise UserError(f"{where}: broken Unicode (a lone surrogate) in column {column!r}")
    return str(value).strip()


class Labels:
    """The labels of a table, row by row, which may be missing or empty unless ``labelled``."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._first: dict[str, tuple[object, str]] = {}
        self._kinds: dict[type, tuple[object, str]] = {}

    def of(self, row: Row) -> Label:
        """Return a row's label, or its labels as a tuple where it has any number.

        Raises:
          UserError: see `label_cell`; also for two values that become one label: ``1`` and ``"1"``, or
            ``"a"`` and ``" a"``; for names among whole numbers; and for a label twice in a row.
        """
        columns = self._columns
        if columns.flags:
            return self._flagged(row)
        value = row[1].get(columns.label)
        if not columns.labelled and (value is None or (value == "" and not columns.many)):
            return None
        value = cell(row, columns.label, "data.label_column")
        if not columns.many:
            return self._one(row[0], value)
        if isinstance(value, str):
            value = value.split(columns.separator) if value.strip() else []
        every = value if isinstance(value, list) else [value]
        return _as_set(row[0], [self._one(row[0], each) for each in every])

    def _flagged(self, row: Row) -> Label:
        """Return the names of the columns that hold 1."""
        names = self._columns.flags
        if not self._columns.labelled and any(row[1].get(n) in (None, "") for n in names):
            return None
        return tuple(name for name in names if self._flag(row, name))

    def _flag(self, row: Row, name: str) -> bool:
        value = cell(row, name, "data.label_column")
        if str(value).strip() not in FLAGS:
            raise UserError(f"{row[0]}: {shown(value)} in column {name!r}; give 0 or 1")
        return FLAGS[str(value).strip()]

    def _one(self, where: str, value: object) -> str:
        label = label_of(where, self._columns.label, value)
        if self._columns.many and isinstance(value, str):
            value = value.strip()  # blanks beside a separator
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


FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True}


def _as_set(where: str, labels: list[str]) -> tuple[str, ...]:
    """Return labels in one order, so that equal sets are equal."""
    made = sorted(labels)
    twice = next((a for a, b in pairwise(made) if a == b), None)
    if twice is not None:
        raise UserError(f"{where}: the label {shown(twice)} stands twice; name it once")
    return tuple(made)


def _kind(value: object) -> str:
    return "a whole number" if isinstance(value, int) else "a name"
