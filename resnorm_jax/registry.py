"""A table of named rows. Every menu of the package is one of these."""

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from resnorm_jax.errors import UserError, nearest


class Named(Protocol):
    """A row: it has a name and says where it comes from."""

    @property
    def name(self) -> str:
        """Name of the row."""


Row = TypeVar("Row", bound=Named)


class Registry(Generic[Row]):
    """Rows by name, in the order in which they came, with aliases."""

    def __init__(self, kind: str, rows: Iterable[Row] = ()) -> None:
        self.kind = kind
        self._rows: dict[str, Row] = {}
        self._aliases: dict[str, str] = {}
        for row in rows:
            self.register(row)

    def register(self, row: Row, *, replace: bool = False) -> Row:
        """Add a row and return it; raise ValueError if its name is taken, unless ``replace``."""
        names = (row.name, *getattr(row, "aliases", ()))
        taken = [n for n in names if n in self._rows or n in self._aliases]
        if taken and not replace:
            raise ValueError(f"{self.kind} {taken[0]!r} is registered already")
        self._rows[row.name] = row
        self._aliases.update(dict.fromkeys(names[1:], row.name))
        return row

    def get(self, name: "str | Row") -> Row:
        """Return the row of this name or alias, or the row itself if given one.

        Raises:
          UserError: naming the nearest known name, or for what is neither a name nor a row.
        """
        if not isinstance(name, str):
            if not hasattr(name, "name"):
                raise UserError(f"{self.kind}: {name!r} is neither a name nor a row; give one")
            return name
        known = self._aliases.get(name, name)
        if known not in self._rows:
            hint = nearest(name, [*self._rows, *self._aliases])
            raise UserError(f"{self.kind}: unknown name {name!r}; {hint}")
        return self._rows[known]

    def __contains__(self, name: object) -> bool:
        """Whether a row has this name or alias."""
        return name in self._rows or name in self._aliases

    def names(self) -> tuple[str, ...]:
        """Names of all rows, without aliases."""
        return tuple(self._rows)

    def rows(self) -> tuple[Row, ...]:
        """All rows."""
        return tuple(self._rows.values())
