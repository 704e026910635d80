"""Lines of a text file of any size, one after another: what keeps a line from being text is told."""

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

from resnorm_jax.data.files import LONGEST_LINE, OTHER_ENCODINGS, UTF8_MARK, file_fault
from resnorm_jax.errors import UserError

UTF8 = ("utf-8", "utf-8-sig")
BLOCK = 2**20


def check_encoding(field: str, name: str) -> str:
    """Return the normal name of a text encoding that Python knows.

    Raises:
      UserError: with the field, for one that it does not know.
    """
    try:
        known = codecs.lookup(name)
        b"  ".decode(name, errors="replace")  # what is no text, as base64, is refused here
    except (LookupError, ValueError, UnicodeError):
        raise UserError(
            f"{field}: {name[:40]!r} is no encoding of text; give one such as utf-8, latin-1, cp1252, "
            "utf-16, gb18030 or shift_jis"
        ) from None
    return known.name


def text_lines(path: str | Path, encoding: str = "utf-8") -> Iterator[str]:
    r"""Yield a file's lines, each but perhaps the last with ``\n`` at its end.

    A byte order mark is dropped; ``\r\n`` and ``\r`` end lines too.

    Raises:
      UserError: with ``file:line`` where there is one: no plain file, unreadable, nothing but blanks,
        of another encoding, a NUL character, or a line of over `LONGEST_LINE` characters.
    """
    fault = file_fault(path)
    if fault:
        raise UserError(f"{path}: {fault}")
    name, number, blank = codecs.lookup(encoding).name, 0, True
    try:
        _check_mark(path, name)
        with open(path, encoding="utf-8-sig" if name in UTF8 else name) as file:
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                _check_line(f"{path}:{number}", line)
                blank = blank and not line.strip()
                yield line
    except UnicodeError:
        raise _wrong_encoding(path, name) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if blank:
        raise UserError(f"{path}: the file is empty; give a file with at least one row")


def _check_mark(path: str | Path, encoding: str) -> None:
    """Raise a UserError where a file read as UTF-8 begins as UTF-16 or UTF-32 do."""
    with open(path, "rb") as file:
        head = file.read(4)
    for mark, found in OTHER_ENCODINGS:
        if encoding in UTF8 and head.startswith(mark):
            raise UserError(
                f"{path}: the file is {found}; save it as UTF-8, or set data.encoding={found.lower()}"
            )


def _check_line(place: str, line: str) -> None:
    if "\0" in line:
        raise UserError(f"{place}: a NUL byte, which no text has; save the file as UTF-8 text")
    if len(line) > LONGEST_LINE:
        raise UserError(
            f"{place}: a line of {len(line)} characters or more, over the limit of {LONGEST_LINE}; "
            "cut the text"
        )


def _wrong_encoding(path: str | Path, encoding: str) -> UserError:
    """Return the error for a file that is not of its encoding, with the line and byte."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line, done, last, shown = 1, 0, "", encoding.upper()
    fix = "save it as UTF-8, or name its data.encoding" if encoding in UTF8 else "name another"
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(block, final=len(block) < BLOCK)
            except UnicodeDecodeError as error:
                text = error.object[: error.start].decode(encoding, errors="replace")
                line, at = line + _ends(last, text), done - pending + error.start
                at -= len(UTF8_MARK) * (encoding in UTF8 and _marked(path))
                return UserError(f"{path}:{line}: not {shown} at byte {at}; {fix}")
            except UnicodeError:
                break
            line, done, last = line + _ends(last, text), done + len(block), text[-1:]
    return UserError(f"{path}: not {shown}; {fix}")


def _ends(last: str, text: str) -> int:
    """Return how many lines end in a text that follows the character ``last``."""
    pairs = text.count("\r\n") + (last == "\r" and text.startswith("\n"))
    return text.count("\n") + text.count("\r") - pairs


def _marked(path: str | Path) -> bool:
    with open(path, "rb") as file:
        return file.read(len(UTF8_MARK)) == UTF8_MARK


def file_size(path: str | Path) -> int:
    """Return a file's size in bytes, or that of all files in a folder."""
    if not os.path.isdir(path):
        return os.stat(path).st_size
    return sum(
        os.stat(os.path.join(folder, name)).st_size
        for folder, _, names in os.walk(path)
        for name in names
    )
