"""Reader of the ``.ts`` text format for labelled time series.

The format is that of the UEA/UCR archive (Bagnall et al. 2018, arXiv:1811.00075): ``@`` tags, then
``@data``, then one case a line, ``channel:channel:label``, values separated by commas.
"""

from pathlib import Path

import numpy as np

from resnorm_jax.data.files import UTF8_MARK, check_line, check_no_nul, read_bytes, unified
from resnorm_jax.data.names import shown
from resnorm_jax.data.plain_numbers import is_plain, plain_number
from resnorm_jax.data.rows import Rows
from resnorm_jax.data.ts_header import Header, check_promises, label_fault, read_header
from resnorm_jax.errors import UserError

MISSING = ("?", "nan", "")
LARGEST = float(np.finfo(np.float32).max)


def _number(place: str, channel: int, word: str, note: str) -> float:
    word = word.strip()
    if word.lower() in MISSING:
        raise UserError(
            f"{place}: missing value {word!r} in channel {channel}; missing values are not "
            f"supported, fill them in first{note}"
        )
    value = plain_number(word)
    if not abs(value) <= LARGEST:
        stamp = "; time stamps are not supported" if word.startswith("(") else ""
        raise UserError(
            f"{place}: {shown(word)} in channel {channel} is not a finite number{stamp}"
        )
    return value


def _channel(place: str, channel: int, text: str, note: str) -> np.ndarray:
    try:
        values = np.array(text.split(",") if is_plain(text) else [np.nan], dtype=np.float64)
    except ValueError:
        values = np.array([np.nan])
    if not (np.abs(values) <= LARGEST).all():
        values = np.array([_number(place, channel, word, note) for word in text.split(",")])
    return values


def parse_case(place: str, channels: list[str], note: str = "") -> np.ndarray:
    """Return one case ``[L, C]`` float64 from its channels' texts; a missing value adds the note.

    Raises:
      UserError: a value is missing or no finite number, or the channels differ in length.
    """
    values = [_channel(place, i + 1, text, note) for i, text in enumerate(channels)]
    for i, channel in enumerate(values):
        if len(channel) != len(values[0]):
            raise UserError(
                f"{place}: channel {i + 1} has {len(channel)} values, channel 1 has "
                f"{len(values[0])}; all channels of a case must be equally long"
            )
    return np.stack(values, axis=1)


def _split_label(place: str, line: str, header: Header) -> tuple[list[str], str | None]:
    parts, declared = line.strip().split(":"), header.classes()
    if not declared:
        return parts, None
    label = parts.pop().strip()
    if label not in declared or not parts:
        raise UserError(f"{place}: {label_fault(header, label)}")
    return parts, label


def _decoded(data: bytes) -> str:
    """Return the text of UTF-8, else of Latin-1, in which every byte is a letter of its own.

    Comments may be of any encoding: bundled files have comments in Latin-1 above a UTF-8 text.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    kept = b"\n".join(b"#" if s.lstrip()[:1] in (b"#", b"%") else s for s in lines)
    try:
        return kept.decode()
    except UnicodeDecodeError:
        return kept.removeprefix(UTF8_MARK).decode("latin-1")


def read_lines(path: str | Path) -> list[str]:
    """Return the file's lines.

    Raises:
      UserError: the path is no plain file, or the file is binary, or holds nothing but blanks.
    """
    data = read_bytes(path)
    check_no_nul(path, data)
    lines = unified(_decoded(data)).split("\n")
    if not any(line.strip() for line in lines):
        raise UserError(f"{path}: the file is empty; give a .ts file with at least one case")
    return lines


def _missing_note(header: Header) -> str:
    if header.flag("missing") is not False:
        return ""
    return f" (line {header.tags['missing'].line} says {header.tags['missing'].text!r})"


def read_ts_file(path: str | Path) -> tuple[Header, Rows]:
    """Read a ``.ts`` file; return its header and what `read_ts` does."""
    lines = read_lines(path)
    header = read_header(path, lines)
    numbered = [(f"{path}:{i}", s) for i, s in enumerate(lines, 1) if i > header.data and s.strip()]
    if not numbered:
        raise UserError(f"{path}:{header.data}: no case after @data; give at least one")
    series: list[np.ndarray] = []
    labels: list[str | None] = []
    note = _missing_note(header)
    for place, line in numbered:
        check_line(place, line)
        channels, label = _split_label(place, line, header)
        values = parse_case(place, channels, note)
        series.append(values)
        labels.append(label)
        if values.shape[1] != series[0].shape[1]:
            raise UserError(
                f"{place}: {values.shape[1]} channels, the first case has "
                f"{series[0].shape[1]}; every case must have the same channels"
            )
    where = [place for place, _ in numbered]
    check_promises(header, series, where)
    return header, Rows(series, labels, where, declared=header.classes())


def read_ts(path: str | Path, *, labelled: bool = False) -> Rows:
    """Read a ``.ts`` file.

    Args:
      path: of the file: UTF-8; one that is not is read as Latin-1. Comments may be of any encoding.
      labelled: whether the header must declare class labels.

    Returns:
      The cases as ``[L_i, C]`` float64.

    Raises:
      UserError: with ``file:line``, for anything that is not a complete numeric case, and for a case
        that contradicts the header.
    """
    header, rows = read_ts_file(path)
    if labelled:
        check_labelled(header)
    return rows


def check_labelled(header: Header) -> None:
    """Raise a UserError unless the header declares class labels."""
    if not header.classes():
        raise UserError(
            f"{header.path}: no class labels in the header; add a line '@classLabel true A B ...' "
            "and end each case with ':label'"
        )
