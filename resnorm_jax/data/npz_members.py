"""The door to ``.npz`` files: arrays by name, each checked before memory is taken. Never unpickles."""

import os
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from resnorm_jax.data.files import file_fault
from resnorm_jax.data.names import shown_names
from resnorm_jax.errors import UserError

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 1  # in a member's flags
FREELY_INFLATED = 2**28  # bytes; beyond it a member may be RATIO times what it takes on the disk
RATIO = 100
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
RECORD = np.dtype([("field", "i1")])  # only structured values are written in later versions
# What the libraries below raise of a damaged file; all are told as one line.
FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    SyntaxError,
    RecursionError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    tokenize.TokenError,
)


def read_arrays(
    path: str | Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """Return the named arrays of a file; others that it holds are not looked at.

    A member may inflate to 256 MiB, or to 100 times its bytes in the file; none may be larger than
    the machine's memory.

    Raises:
      UserError: with the file and the array: no plain file, no ``.npz``, damaged, an array missing or
        twice, objects, or too large.
    """
    fault = file_fault(path)
    if fault:
        raise UserError(f"{path}: {fault}")
    try:
        with open(path, "rb") as opened, zipfile.ZipFile(opened) as file:
            members = _members(path, file)
            missing = [key for key in required if key not in members]
            if missing:
                raise UserError(
                    f"{path}: no array {', '.join(map(repr, missing))}; "
                    f"it holds: {shown_names(list(members))}"
                )
            keys = [key for key in dict.fromkeys((*required, *optional)) if key in members]
            return {key: _read(path, key, file, members[key]) for key in keys}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except FAULTS as error:
        raise UserError(f"{path}: {_no_zip(path, error)}") from error


def _no_zip(path: str | Path, error: BaseException) -> str:
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            return f"damaged .npz ({_line(error)}); write it again"
    return "not an .npz file; write it with numpy.savez(path, x=..., y=...)"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _members(path: str | Path, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members by the name of their array; nothing is ever written under these names."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in file.infolist():
        key = info.filename.removesuffix(".npy")
        if key in members:
            raise UserError(f"{path}: array {key!r} stands twice; write the file again")
        members[key] = info
    return members


def _read(path: str | Path, key: str, file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    place = f"{path}: array {key!r}"
    if info.flag_bits & ENCRYPTED:
        raise UserError(f"{place} is encrypted; write it with numpy.savez")
    if info.compress_type not in METHODS:
        raise UserError(
            f"{place} is compressed by zip method {info.compress_type}; write it with "
            "numpy.savez or numpy.savez_compressed"
        )
    try:
        if info.compress_size > file.start_dir:
            raise EOFError("the file ends before the array does")
        with file.open(info) as stream:
            _check_size(place, info, *_header(place, stream))
        with file.open(info) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except UserError:
        raise
    except FAULTS as error:
        raise UserError(
            f"{path}: damaged .npz (array {key!r}: {_line(error)}); write it again"
        ) from error


def _header(place: str, stream: IO[bytes]) -> tuple[int, int]:
    """Return the bytes of a ``.npy`` header, and those that it announces."""
    version = np.lib.format.read_magic(stream)
    shape, _, dtype = HEADERS[version](stream) if version in HEADERS else ((), False, RECORD)
    if dtype.names:
        raise UserError(f"{place} holds structured values; save numbers or fixed-width strings")
    if dtype.hasobject:
        raise UserError(
            f"{place} holds Python objects, which are not unpickled; "
            "save numbers or fixed-width strings, and pad ragged rows (with 'lengths')"
        )
    if any(size < 0 for size in shape):
        raise ValueError(f"the header gives the shape {shape}")
    return stream.tell(), _product(shape) * dtype.itemsize


def _product(shape: Sequence[int]) -> int:
    """Return the product in Python's integers, which do not overflow."""
    total = 1
    for size in shape:
        total *= int(size)
    return total


def _check_size(place: str, info: zipfile.ZipInfo, header: int, announced: int) -> None:
    held = info.file_size - header
    if announced != held:
        raise EOFError(f"its header announces {announced} bytes, the member holds {held}")
    if held > max(FREELY_INFLATED, RATIO * info.compress_size):
        raise UserError(
            f"{place} inflates to {held} bytes from {info.compress_size}, over the limit of "
            f"{RATIO} times and {FREELY_INFLATED} bytes; write it with numpy.savez, uncompressed"
        )
    if held > memory():
        raise UserError(
            f"{place} takes {held} bytes, this machine's memory is {memory()}; give fewer rows"
        )


def memory() -> int:
    """Return the bytes of this machine's memory; a large number where it cannot be told."""
    sizes: Any = getattr(os, "sysconf", lambda name: 2**31)  # Windows has none
    return int(sizes("SC_PHYS_PAGES")) * int(sizes("SC_PAGE_SIZE"))
