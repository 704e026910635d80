"""The header of a ``.ts`` file: its tags, and what they promise of the rows."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resnorm_jax.data.names import check_distinct, shown_names
from resnorm_jax.errors import UserError

FLAGS = ("univariate", "equallength", "missing", "timestamps", "targetlabel", "classlabel")
COUNTS = ("dimensions", "serieslength")
ALIASES = {"dimension": "dimensions"}
REFUSED = {"timestamps": "time stamps are", "targetlabel": "regression targets are"}
BOTH_FILES = ("univariate", *COUNTS)  # what a training and a test file must agree on


class Tag(NamedTuple):
    """A tag as it stands in the file: its line, counted from 1, and all its words."""

    line: int
    words: list[str]

    @property
    def value(self) -> str:
        """The first word after the tag in lower case; empty where there is none."""
        return self.words[1].lower() if len(self.words) > 1 else ""

    @property
    def text(self) -> str:
        """The tag as it is written, cut where it is long."""
        return " ".join(self.words)[:60]


@dataclass(frozen=True)
class Header:
    """The tags of a file that are read (lower case, without ``@``), and the line of ``@data``."""

    path: str
    tags: dict[str, Tag]
    data: int

    def place(self, key: str) -> str:
        """Return ``file:line`` of a tag."""
        return f"{self.path}:{self.tags[key].line}"

    def flag(self, key: str) -> bool | None:
        """Return what a tag of true or false says; None where it does not stand."""
        return self.tags[key].value == "true" if key in self.tags else None

    def count(self, key: str) -> int | None:
        """Return the number of a tag; None where it does not stand."""
        return int(self.tags[key].value) if key in self.tags else None

    def classes(self) -> tuple[str, ...]:
        """Return the class names of ``@classLabel true A B ...``; empty without class labels."""
        return tuple(self.tags["classlabel"].words[2:]) if self.flag("classlabel") else ()


def read_header(path: str | Path, lines: list[str]) -> Header:
    """Read the tags before the rows.

    Raises:
      UserError: with the line, for a header without ``@data``, a line that is no tag, a tag whose
        value is none or that contradicts another, class names that are not different, and what is
        not supported (time stamps, regression targets).
    """
    header = Header(str(path), {}, 0)
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0][0] in "#%":
            continue
        if words[0][0] != "@":
            raise UserError(f"{path}:{number}: {line[:40]!r} before '@data'; add an @data line")
        key = words[0][1:].lower()
        if key == "data":
            return _finished(Header(str(path), header.tags, number), words)
        key = ALIASES.get(key, key)
        if key in FLAGS or key in COUNTS:
            _add(header, key, Tag(number, words))
    raise UserError(f"{path}: no @data line; a .ts file has @ tags, @data, then one case a line")


def _add(header: Header, key: str, tag: Tag) -> None:
    place = f"{header.path}:{tag.line}"
    if key in FLAGS and tag.value not in ("true", "false"):
        raise UserError(f"{place}: {tag.text!r}: write true or false after {tag.words[0]}")
    if key in COUNTS and not re.fullmatch("0*[1-9][0-9]{0,17}", tag.value):
        raise UserError(f"{place}: {tag.text!r}: write a whole number over 0 after {tag.words[0]}")
    old = header.tags.setdefault(key, tag)
    if (old.value, old.words[2:]) != (tag.value, tag.words[2:]):
        raise UserError(f"{place}: {tag.text!r}, but line {old.line} says {old.text!r}; keep one")


def _finished(header: Header, data: list[str]) -> Header:
    if len(data) > 1:
        text = " ".join(data[1:])[:40]
        raise UserError(f"{header.path}:{header.data}: {text!r} after @data; begin a new line")
    for key, what in REFUSED.items():
        if header.flag(key):
            place, tag = header.place(key), header.tags[key]
            raise UserError(f"{place}: {tag.text}: {what} not supported; give plain values")
    if header.flag("classlabel"):
        _check_classes(header)
    if header.flag("univariate") and (header.count("dimensions") or 1) > 1:
        one, two = header.tags["univariate"], header.tags["dimensions"]
        raise UserError(
            f"{header.path}:{two.line}: {two.text!r}, but line {one.line} says {one.text!r}; "
            "correct one"
        )
    return header


def _check_classes(header: Header) -> None:
    names, place = header.classes(), header.place("classlabel")
    if not names:
        raise UserError(
            f"{place}: @classLabel true without class names; write '@classLabel true A B'"
        )
    check_distinct(names, [place] * len(names))


def _promises(header: Header, first: np.ndarray) -> list[tuple[str, int, Callable[[int], bool]]]:
    """Return the tags that bind the rows: key, axis of ``[L, C]``, and what its size must fulfil."""
    dimensions, length = header.count("dimensions"), header.count("serieslength")
    equal = header.flag("equallength")
    rows: list[tuple[str, int, bool, Callable[[int], bool]]] = [
        ("univariate", 1, header.flag("univariate") is True, lambda size: size == 1),
        ("univariate", 1, header.flag("univariate") is False, lambda size: size > 1),
        ("dimensions", 1, dimensions is not None, lambda size: size == dimensions),
        ("serieslength", 0, bool(length) and equal is not False, lambda size: size == length),
        ("equallength", 0, equal is True, lambda size: size == len(first)),
    ]
    return [(key, axis, holds) for key, axis, stands, holds in rows if stands]


def check_promises(header: Header, series: list[np.ndarray], where: list[str]) -> None:
    """Check the rows against the header.

    ``@equalLength true``, ``@seriesLength`` (where ``@equalLength`` is not false), ``@dimensions`` and
    ``@univariate`` bind every row. ``@equalLength false`` and ``@missing true`` promise nothing.

    Args:
      header: of the file.
      series: its rows, ``[L_i, C]``, at least one.
      where: their places.

    Raises:
      UserError: with the place of the first row that contradicts, and the header's line.
    """
    promises = _promises(header, series[0])
    for values, place in zip(series, where, strict=True):
        for key, axis, holds in promises:
            if not holds(values.shape[axis]):
                found = f"{values.shape[axis]} {('values a channel', 'channels')[axis]}"
                first = f" and the first case has {len(series[0])}" if key == "equallength" else ""
                tag = header.tags[key]
                raise UserError(
                    f"{place}: {found}, but line {tag.line} says {tag.text!r}{first}; "
                    "correct the row or the header"
                )


def check_same(train: Header, test: Header) -> None:
    """Raise a UserError where the tags of a training and a test file contradict each other."""
    for key in BOTH_FILES:
        one, two = train.tags.get(key), test.tags.get(key)
        if one and two and one.value.lstrip("0") != two.value.lstrip("0"):
            raise UserError(
                f"{test.place(key)}: {two.text!r}, but {train.place(key)} says {one.text!r}; "
                "both files must be of one problem"
            )


def label_fault(header: Header, label: str) -> str:
    """Return what is said of a line that does not end in a declared label."""
    classes, line = header.classes(), header.tags["classlabel"].line
    near = [name for name in classes if name.casefold() == label.casefold()]
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        f"the line ends in {label[:40]!r}, not in ':' and a label of @classLabel in line {line} "
        f"({shown_names(classes)}){hint}"
    )
