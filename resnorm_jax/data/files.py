"""The door to data files: whatever is no plain, readable file of text becomes one line."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from resnorm_jax.errors import UserError

HEAD = 2**16  # bytes looked at before the rest is read
LARGEST_TEXT = 2**32  # bytes of a text file
LONGEST_LINE = 2**26  # characters of a line
KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# UTF-32 stands first: its little-endian mark begins as that of UTF-16 does.
OTHER_ENCODINGS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
UTF8_MARK = b"\xef\xbb\xbf"


def file_fault(path: str | Path) -> str | None:
    """Return what keeps a path from being a plain file, as words; None where it is one.

    A named pipe is not opened: that would wait for whoever writes to it.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            return f"a link to {os.readlink(path)}, which does not exist; check the link"
        return "no such file; check the path"
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        return f"cannot be read ({getattr(error, 'strerror', error)}); check the path"
    found = next((what for is_kind, what in KINDS if is_kind(mode)), None)
    return found and f"{found}, not a file; check the path"


def read_bytes(path: str | Path, largest: int = LARGEST_TEXT) -> bytes:
    """Return a text file's bytes.

    Raises:
      UserError: the path is no plain file, cannot be read, is larger than ``largest`` bytes, or
        begins as UTF-16, UTF-32 or binary data do.
    """
    fault = file_fault(path)
    if fault:
        raise UserError(f"{path}: {fault}")
    try:
        check_size(path, largest)
        with open(path, "rb") as file:
            data = file.read(HEAD)
            _check_head(path, data)
            return data + file.read() if len(data) == HEAD else data
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def check_size(path: str | Path, largest: int = LARGEST_TEXT) -> None:
    """Raise a UserError for a file of more than ``largest`` bytes."""
    size = os.stat(path).st_size
    if size > largest:
        raise UserError(f"{path}: {size} bytes, over the limit of {largest}; split the file")


def _check_head(path: str | Path, head: bytes) -> None:
    for mark, encoding in OTHER_ENCODINGS:
        if head.startswith(mark):
            raise UserError(f"{path}: the file is {encoding}; save it as UTF-8")
    check_no_nul(path, head)


def check_no_nul(path: str | Path, data: bytes) -> None:
    """Raise a UserError with the line of the first NUL byte, if there is one."""
    at = data.find(b"\0")
    if at >= 0:
        place = f"{path}:{line_at(data, at)}"
        raise UserError(f"{place}: a NUL byte, which no text has; save the file as UTF-8 text")


def line_at(data: bytes, position: int) -> int:
    """Return the number, from 1, of the line that holds a position: lines end as Python's do."""
    before = data[:position]
    return 1 + before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")


def unified(text: str) -> str:
    r"""Return the text with ``\n`` for every end of a line, and without a byte order mark."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: str | Path) -> str:
    r"""Return a UTF-8 file's text (a byte order mark is dropped, lines end in ``\n``).

    Raises:
      UserError: see `read_bytes`; also for a file that is not UTF-8, holds a NUL byte, or nothing
        but blanks.
    """
    data = read_bytes(path)
    check_no_nul(path, data)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        at = error.start - len(UTF8_MARK) * data.startswith(UTF8_MARK)
        place = f"{path}:{line_at(data, error.start)}"
        raise UserError(f"{place}: not UTF-8 at byte {at}; save it as UTF-8") from error
    text = unified(text)
    if not text.strip():
        raise UserError(f"{path}: the file is empty; give a file with at least one row")
    return text


def check_line(place: str, line: str, longest: int = LONGEST_LINE) -> None:
    """Raise a UserError for a line of more than ``longest`` characters."""
    if len(line) > longest:
        raise UserError(
            f"{place}: a line of {len(line)} characters, over the limit of {longest}; "
            "cut the row, or give an .npz file"
        )
