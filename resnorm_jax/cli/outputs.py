"""Where a command may write: looked at before any work, so that nothing is lost or overwritten."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from resnorm_jax.errors import UserError


def check_file(option: str, path: Path, suffixes: Iterable[str] = ()) -> Path:
    """Return a file that is to be written.

    Raises:
      UserError: naming the option: another suffix, something is there, or it cannot be made.
    """
    known = tuple(suffixes)
    if known and path.suffix not in known:
        raise UserError(f"{option}: {path}: write to a {' or a '.join(known)} file")
    if _exists(option, path):
        raise UserError(f"{option}: {path} exists; name a new file")
    _check_writable(option, path.parent)
    return path


def check_folder(option: str, folder: Path, names: Iterable[str] | None = None) -> Path:
    """Return a folder in which files are to be written.

    Args:
      option: that names it.
      folder: made if it is not there.
      names: of the files; None if the folder must be new or empty.

    Raises:
      UserError: naming the option: something is in place of the folder or of a file, or files cannot
        be made there.
    """
    if _exists(option, folder) and not folder.is_dir():
        raise UserError(f"{option}: {folder} is a file; name a directory")
    if names is None and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{option}: {folder} holds other files; name a new folder")
    for name in names or ():
        if _exists(option, folder / name):
            raise UserError(f"{option}: {folder / name} exists; name a new folder")
    _check_writable(option, folder)
    return folder


def _exists(option: str, path: Path) -> bool:
    """Whether something has this name, a link to nowhere too."""
    try:
        # As long as the name under which a file is written at first.
        os.lstat(path.with_name(f".{path.name}.{2**32}.tmp"))
    except (
        FileNotFoundError,
        ValueError,
    ):  # as it should be, or a path that has no name, such as /
        pass
    except OSError as error:
        raise UserError(f"{option}: {path}: {error.strerror}; name another place") from None
    return os.path.lexists(path)


def _check_writable(option: str, folder: Path) -> None:
    """Raise UserError unless files can be made in a folder, or in the one where it will be made."""
    there = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"{option}: cannot write in {there}: {error.strerror}; name another place"
        ) from None
