"""Reader of the ``.ts`` text format for labelled time series.

The format is that of the UEA/UCR archive (Bagnall et al. 2018, arXiv:1811.00075): ``@`` tags, then
``@data``, then one case a line, ``channel:channel:label``, values separated by commas.
"""

from pathlib import Path

import numpy as np

from resnorm_jax.data.rows import Rows
from resnorm_jax.errors import UserError

MISSING = ("?", "nan", "")
LARGEST = float(np.finfo(np.float32).max)


def read_header(path: str | Path, lines: list[str]) -> tuple[dict[str, list[str]], int]:
    """Return the header's tags (lower case, without ``@``) and the index of the ``@data`` line.

    Raises:
      UserError: no ``@data`` line, a line that is no tag, or a header asking for what is not
        supported (time stamps, regression targets).
    """
    tags: dict[str, list[str]] = {}
    for number, line in enumerate(lines):
        words = line.split()
        if not words or words[0][0] in "#%":
            continue
        if words[0][0] != "@":
            raise UserError(f"{path}:{number + 1}: {line[:40]!r} before '@data'; add an @data line")
        tags[words[0][1:].lower()] = words[1:]
        if "data" in tags:
            _refuse(path, tags)
            return tags, number
    raise UserError(f"{path}: no @data line; a .ts file has @ tags, @data, then one case a line")


def _is_true(tags: dict[str, list[str]], key: str) -> bool:
    return [word.lower() for word in tags.get(key, [])[:1]] == ["true"]


def _refuse(path: str | Path, tags: dict[str, list[str]]) -> None:
    for key, what in (("timestamps", "time stamps are"), ("targetlabel", "regression targets are")):
        if _is_true(tags, key):
            raise UserError(f"{path}: @{key} true: {what} not supported; give plain values")


def declared_classes(path: str | Path, tags: dict[str, list[str]]) -> tuple[str, ...]:
    """Return the class names of ``@classLabel true A B ...``; empty without class labels."""
    if not _is_true(tags, "classlabel"):
        return ()
    names = tuple(tags["classlabel"][1:])
    if not names:
        raise UserError(
            f"{path}: @classLabel true without class names; write '@classLabel true A B'"
        )
    return names


def _number(place: str, channel: int, word: str) -> float:
    if word.strip().lower() in MISSING:
        raise UserError(
            f"{place}: missing value {word.strip()!r} in channel {channel}; missing values are not "
            "supported, fill them in first"
        )
    try:
        value = float(word)
    except ValueError:
        value = np.nan
    if not abs(value) <= LARGEST:
        raise UserError(f"{place}: {word.strip()!r} in channel {channel} is not a finite number")
    return value


def _channel(place: str, channel: int, text: str) -> np.ndarray:
    try:
        values = np.array(text.split(","), dtype=np.float64)
    except ValueError:
        values = np.array([np.nan])
    if not (np.abs(values) <= LARGEST).all():
        values = np.array([_number(place, channel, word) for word in text.split(",")])
    return values


def parse_case(place: str, channels: list[str]) -> np.ndarray:
    """Return one case ``[L, C]`` float64 from its channels' texts.

    Raises:
      UserError: a value is missing or no finite number, or the channels differ in length.
    """
    values = [_channel(place, i + 1, text) for i, text in enumerate(channels)]
    for i, channel in enumerate(values):
        if len(channel) != len(values[0]):
            raise UserError(
                f"{place}: channel {i + 1} has {len(channel)} values, channel 1 has "
                f"{len(values[0])}; all channels of a case must be equally long"
            )
    return np.stack(values, axis=1)


def _split_label(place: str, line: str, declared: tuple[str, ...]) -> tuple[list[str], str]:
    parts = line.strip().split(":")
    if not declared:
        return parts, ""
    label = parts.pop().strip()
    if label not in declared or not parts:
        raise UserError(
            f"{place}: the line ends in {label[:40]!r}, not in ':' and a label of @classLabel "
            f"({', '.join(declared)})"
        )
    return parts, label


def read_ts(path: str | Path, *, labelled: bool = False) -> Rows:
    """Read a ``.ts`` file.

    Args:
      path: of the file (UTF-8; characters that are not are let pass in comments).
      labelled: whether the header must declare class labels.

    Returns:
      The cases as ``[L_i, C]`` float64.

    Raises:
      UserError: with ``file:line``, for anything that is not a complete numeric case.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not any(line.strip() for line in lines):
        raise UserError(f"{path}: the file is empty; give a .ts file with at least one case")
    tags, start = read_header(path, lines)
    declared = declared_classes(path, tags)
    numbered = [(i + 1, s) for i, s in enumerate(lines) if i > start and s.strip()]
    if not numbered:
        raise UserError(f"{path}:{start + 1}: no case after @data; give at least one")
    series: list[np.ndarray] = []
    labels: list[str | None] = []
    for number, line in numbered:
        place = f"{path}:{number}"
        channels, label = _split_label(place, line, declared)
        series.append(parse_case(place, channels))
        labels.append(label or None)
        if series[-1].shape[1] != series[0].shape[1]:
            raise UserError(
                f"{place}: {series[-1].shape[1]} channels, the first case has "
                f"{series[0].shape[1]}; every case must have the same channels"
            )
    if labelled and not declared:
        raise UserError(
            f"{path}: no class labels in the header; add a line '@classLabel true A B ...' and end "
            "each case with ':label'"
        )
    where = [f"{path}:{number}" for number, _ in numbered]
    return Rows(series, labels, where, declared=declared)
