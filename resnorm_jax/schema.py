"""Config fields that say once what they are: type, default, rule or choices, and a line of help.

A section of a config, and the options of a data source, are frozen dataclasses of such fields::

    depth: int = option(3, "layers", POSITIVE)

`checked` reads the types off the annotations and the rules off the fields; the messages are made here.
"""

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from resnorm_jax.errors import UserError, check_choice, nearest

PLAIN = (int, float, str, bool)


@dataclass(frozen=True)
class Rule:
    """What a number must fulfil, and what is said of one that does not."""

    holds: Callable[[Any], bool]
    fault: str

    def check(self, path: str, value: Any) -> None:
        """Raise a UserError naming the field unless the rule holds."""
        if not self.holds(value):
            raise UserError(f"{path}: {value} {self.fault}")


def between(low: float, high: float) -> Rule:
    """Return the rule ``low <= value <= high``."""
    fault = f"is out of range; give a value from {low} to {high}"
    return Rule(lambda value: low <= value <= high, fault)


POSITIVE = Rule(lambda value: value > 0, "must be over 0")
NOT_NEGATIVE = Rule(lambda value: value >= 0, "must not be negative")
SHARE = Rule(lambda value: 0 <= value < 1, "must lie in [0, 1)")
FRACTION = Rule(
    lambda value: 0 < value < 1, "is no fraction; give a value between 0 and 1, e.g. 0.2"
)
SEED = between(0, 2**63 - 1)


def option(
    default: Any, help: str, rule: Rule | None = None, *, choices: Iterable[str] = ()
) -> Any:
    """Return a dataclass field with its default, a line of help, and a rule or choices."""
    return field(default=default, metadata={"help": help, "rule": rule, "choices": tuple(choices)})


def kinds(section: Any) -> dict[str, tuple[Any, bool]]:
    """Return each field's type, and whether it may be None."""
    hints = typing.get_type_hints(section)
    return {f.name: _kind(hints[f.name]) for f in fields(section)}


def _kind(hint: Any) -> tuple[Any, bool]:
    if isinstance(hint, types.UnionType):
        return next(k for k in typing.get_args(hint) if k is not type(None)), True
    return hint, False


def kind_name(kind: type) -> str:
    """Return a type as a person says it: ``"a whole number"``."""
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a string")


def _told(value: Any, kind: type) -> str:
    return f"{value!r} is not {kind_name(kind)}"


def checked(
    section: Any,
    values: Mapping[str, Any],
    path: str,
    unknown: str = "unknown key",
    mistyped: Callable[[Any, type], str] = _told,
) -> dict[str, Any]:
    """Check values against a section's fields; sections inside become their dataclasses.

    Args:
      section: dataclass of the fields.
      values: some or all of them, by name.
      path: what stands before a field's name in messages, its last dot included.
      unknown: what is said of a name that is no field.
      mistyped: from a value and the type expected to what is said of it.

    Returns:
      Arguments for ``section``: whole numbers stand for numbers, None only where it may.

    Raises:
      UserError: naming the field: unknown (with the nearest name), of a wrong type, or against its
        rule or choices.
    """
    known = kinds(section)
    for name in values:
        if name not in known:
            raise UserError(f"{path}{name}: {unknown}; {nearest(name, known)}")
    made: dict[str, Any] = {}
    for f in fields(section):
        if f.name not in values:
            continue
        value, (kind, optional) = values[f.name], known[f.name]
        if is_dataclass(kind):
            section_of: Any = kind
            made[f.name] = section_of(**checked(section_of, value, f"{path}{f.name}."))
        elif value is None and optional:
            made[f.name] = None
        elif not _fits(value, kind):
            raise UserError(f"{path}{f.name}: {mistyped(value, kind)}")
        else:
            made[f.name] = kind(value)
            _check(f.metadata, f"{path}{f.name}", made[f.name])
    return made


def _fits(value: Any, kind: type) -> bool:
    accepted = (int, float) if kind is float else kind
    return isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)


def _check(metadata: Mapping[str, Any], path: str, value: Any) -> None:
    if metadata.get("rule"):
        metadata["rule"].check(path, value)
    if metadata.get("choices"):
        check_choice(path, value, metadata["choices"])
