"""The table of data sources, and loading by name."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any, get_type_hints

from resnorm_jax.data.dataset import Dataset
from resnorm_jax.data.source import Source
from resnorm_jax.errors import UserError, check_choice
from resnorm_jax.schema import PLAIN, checked

BUILTIN = ("series", "digits", "listops", "arrays", "text", "sample_text")


class Sources(Mapping[str, Source]):
    """Sources by name. A built-in one is a file of this folder, which is imported when first used."""

    def __init__(self) -> None:
        self._rows: dict[str, Source | None] = dict.fromkeys(BUILTIN)

    def __getitem__(self, name: str) -> Source:
        if self._rows[name] is None:
            self._rows[name] = import_module(f"resnorm_jax.data.{name}").SOURCE
        row = self._rows[name]
        assert row is not None
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __setitem__(self, name: str, row: Source) -> None:
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self._rows[name]


SOURCES = Sources()


def register_source(source: Source) -> Source:
    """Add a source to the table and return it.

    Raises:
      ValueError: the name is taken, or an option is not int, float, str or bool.
    """
    if source.name in SOURCES:
        raise ValueError(f"data source {source.name!r} is already registered")
    check_plain(source)
    SOURCES[source.name] = source
    return source


def check_plain(source: Source) -> None:
    """Raise ValueError if an option of a source is not int, float, str or bool."""
    for name, kind in get_type_hints(source.options).items():
        if kind not in PLAIN:
            raise ValueError(f"option {name!r} of {source.name!r}: {kind} is not a plain type")


def _mistyped(value: object, kind: type) -> str:
    return f"{value!r} is {type(value).__name__}, expected {kind.__name__}; give a {kind.__name__}"


def make_options(source: str, options: Mapping[str, object]) -> Any:
    """Return the source's options, checked against its dataclass.

    Raises:
      UserError: unknown source or option (the nearest is named), a value of the wrong type, out of
        range, or not among the choices.
    """
    section = SOURCES[check_choice("data.source", source, SOURCES)].options
    unknown = f"unknown option of source {source!r}"
    return section(**checked(section, options, "data.", unknown, _mistyped))


def load_dataset(source: str, options: Mapping[str, object]) -> Dataset:
    """Load a data set by the name of its source.

    Args:
      source: a key of ``SOURCES``.
      options: of the source; those left out take their defaults.

    Returns:
      The data set, with ``source`` set to the name and all options.

    Raises:
      UserError: see ``make_options`` and the source's loader.
    """
    made = make_options(source, options)
    data = SOURCES[source].load(made)
    if not data.classes:
        raise UserError(
            f"data.source: no training row of {data.name!r} has a label; give some labels"
        )
    if len(data.classes) < 2 and data.task == "single_label":
        raise UserError(
            f"data.source: the training rows of {data.name!r} have one class, {data.classes[0]!r}; "
            "give rows of at least two"
        )
    return data.replace(source={"name": source, "options": asdict(made)})
