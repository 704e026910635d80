"""Config fields that say once what they are: type, default, rule or choices, and a line of help.

A section of a config, and the options of a data source, are frozen dataclasses of such fields::

    depth: int = option(3, "layers", POSITIVE)

`checked` reads the types off the annotations and the rules off the fields; the messages are made here.
"""

import contextlib
import math
import re
import struct
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from resnorm_jax.errors import UserError, check_choice, nearest

PLAIN = (int, float, str, bool)
LONGEST = 100  # characters of a value in a message
LONGEST_NUMBER = 400  # characters; Python reads no integer of over 4,300 digits


@dataclass(frozen=True)
class Rule:
    """The range of a number, and what is said of one outside; NaN is outside of every range.

    A number holds as it is and as float32 has it, in which models compute: one that would be rounded
    to zero, to infinity or to an end that is left out is refused.

    Attributes:
      low: least value, finite.
      high: largest value, finite.
      without: the ends that are left out themselves: ``"low"``, ``"high"``, both or none.
      below: said of a value under the range in place of the range.
      above: likewise of a value over it.
    """

    low: float
    high: float
    without: tuple[str, ...] = ()
    below: str = ""
    above: str = ""

    def check(self, path: str, value: Any) -> None:
        """Raise a UserError naming the field unless the rule holds."""
        if not self.holds(value):
            said = self.below if self._under(value) else self.above if self._over(value) else ""
            raise UserError(f"{path}: {told(value)} {said or self._range()}")
        near = _float32(value) if isinstance(value, float) else value
        if bool(near) != bool(value) or not self.holds(near):
            raise UserError(
                f"{path}: {value} is {near} in float32, in which models compute; "
                "give a number that float32 has"
            )

    def holds(self, value: Any) -> bool:
        """Whether a number lies in the range."""
        return not (self._under(value) or self._over(value)) and value == value

    def _under(self, value: Any) -> bool:
        return value <= self.low if "low" in self.without else value < self.low

    def _over(self, value: Any) -> bool:
        return value >= self.high if "high" in self.without else value > self.high

    def _range(self) -> str:
        start = "over" if "low" in self.without else "from"
        end = "under" if "high" in self.without else "to"
        return f"is out of range; give a value {start} {self.low} {end} {self.high}"


def _float32(value: float) -> float:
    """Return a number as float32 has it where what is under its normal numbers is zero."""
    try:
        (near,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return near if abs(near) >= 2.0**-126 else 0.0


def told(value: Any, longest: int = LONGEST) -> str:
    """Return a value as a message shows it: in short where it is long."""
    if isinstance(value, int) and abs(value) > 10**40:  # Python prints no number of 5,000 digits
        return f"a number of about {math.floor(math.log10(abs(value))) + 1} digits"
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def between(low: float, high: float) -> Rule:
    """Return the rule ``low <= value <= high``."""
    return Rule(low, high)


def over_zero(high: float) -> Rule:
    """Return the rule ``0 < value <= high``."""
    return Rule(0, high, ("low",), "must be over 0")


def from_zero(high: float) -> Rule:
    """Return the rule ``0 <= value <= high``."""
    return Rule(0, high, (), "must not be negative")


MOST = 2**31 - 1  # as int32 counts, in which steps are counted
POSITIVE = over_zero(MOST)
NOT_NEGATIVE = from_zero(MOST)
SHARE = Rule(0, 1, ("high",), "must lie in [0, 1)", "must lie in [0, 1)")
_NO_FRACTION = "is no fraction; give a value between 0 and 1, e.g. 0.2"
FRACTION = Rule(0, 1, ("low", "high"), _NO_FRACTION, _NO_FRACTION)
SEED = between(0, 2**63 - 1)
KEY_SEED = between(0, 2**32 - 1)  # JAX makes its keys of 32 bits: seed 2**32 would be seed 0


def option(
    default: Any, help: str, rule: Rule | None = None, *, choices: Iterable[str] = ()
) -> Any:
    """Return a dataclass field with its default, a line of help, and a rule or choices.

    Choices of a number are words that may stand in its place: ``int | Literal["auto"]``.
    """
    return field(default=default, metadata={"help": help, "rule": rule, "choices": tuple(choices)})


def kinds(section: Any) -> dict[str, tuple[Any, bool]]:
    """Return each field's type, and whether it may be None."""
    hints = typing.get_type_hints(section)
    return {f.name: _kind(hints[f.name]) for f in fields(section)}


def _kind(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    parts = typing.get_args(hint)
    plain = (k for k in parts if isinstance(k, type) and k is not type(None))
    return next(plain), type(None) in parts


def kind_name(kind: type) -> str:
    """Return a type as a person says it: ``"a whole number"``."""
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a string")


def words_of(declared: Any, kind: Any) -> tuple[str, ...]:
    """Return the words that may stand in the place of the number of a dataclass's field."""
    return declared.metadata.get("choices", ()) if kind in (int, float) else ()


def or_words(kind: type, words: Iterable[str]) -> str:
    """Return what a field takes, as a person says it: ``"a whole number or 'auto'"``."""
    return " or ".join([kind_name(kind), *map(repr, words)])


DIGITS = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf|nan", re.IGNORECASE
)


def number(text: str, kind: type) -> Any:
    """Return the int or float that a text is, written plainly: in ASCII, without blanks or ``_``.

    Raises:
      UserError: what the text is not, and how the number that Python would take is written. No field
        is named.
    """
    if (DIGITS if kind is int else NUMBER).fullmatch(text) and len(text) < LONGEST_NUMBER:
        return kind(text)
    meant = _meant(text, kind)
    hint = "" if meant is None else f"; write {meant}"
    raise UserError(f"{told(text)!r} is not {kind_name(kind)}{hint}")


def _meant(text: str, kind: type) -> Any:
    """Return the number that a text may stand for, such as ``0x10`` or ``1e3``, or None."""
    if len(text) >= LONGEST_NUMBER:
        return None
    for read in (lambda: int(text, 0), lambda: float(text)):
        with contextlib.suppress(ValueError):
            found = read()
            if kind is float or (math.isfinite(found) and found == int(found)):
                return kind(found)
    return None


def _told(value: Any, kind: type) -> str:
    return f"{told(repr(value))} is not {kind_name(kind)}"


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
            raise UserError(f"{path}{told(name)}: {unknown}; {nearest(str(name), known)}")
    made: dict[str, Any] = {}
    for f in fields(section):
        if f.name not in values:
            continue
        value, (kind, optional) = values[f.name], known[f.name]
        if is_dataclass(kind):
            section_of: Any = kind
            check_section(f"{path}{f.name}", value)
            made[f.name] = section_of(**checked(section_of, value, f"{path}{f.name}."))
        elif value is None and optional:
            made[f.name] = None
        elif isinstance(value, str) and (words := words_of(f, kind)):
            if value not in words:
                said = f"{told(repr(value))} is not {or_words(kind, words)}"
                raise UserError(f"{path}{f.name}: {said}")
            made[f.name] = value
        elif not _fits(value, kind):
            raise UserError(f"{path}{f.name}: {mistyped(value, kind)}")
        else:
            made[f.name] = _converted(value, kind)
            _check(f.metadata, f"{path}{f.name}", made[f.name])
    return made


def check_section(path: str, value: Any) -> None:
    """Raise a UserError unless a section of a config holds fields by name."""
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: {told(repr(value))} is no section; give its fields by name")


def _converted(value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except OverflowError:  # a whole number that no float holds
        return math.inf if value > 0 else -math.inf


def _fits(value: Any, kind: type) -> bool:
    accepted = (int, float) if kind is float else kind
    return isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)


def _check(metadata: Mapping[str, Any], path: str, value: Any) -> None:
    if metadata.get("rule"):
        metadata["rule"].check(path, value)
    if metadata.get("choices") and isinstance(value, str):
        check_choice(path, value, metadata["choices"])
