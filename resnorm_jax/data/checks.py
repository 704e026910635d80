"""Small checks and helpers shared by the data sources."""

import importlib
from pathlib import Path
from types import ModuleType

from resnorm_jax.errors import UserError


def check_file(field: str, path: str | Path) -> Path:
    """Return the path as a ``Path``; raise a UserError naming ``field`` if it is no file."""
    if not Path(path).is_file():
        raise UserError(f"{field}: no file at {str(path)!r}; check the path")
    return Path(path)


def read_text(path: str | Path) -> str:
    """Return a UTF-8 file's text (a byte order mark is dropped).

    Raises:
      UserError: the file is missing, is not UTF-8, or holds nothing but blanks.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if not text.strip():
        raise UserError(f"{path}: the file is empty; give a file with at least one row")
    return text


def import_extra(module: str, package: str, extra: str) -> ModuleType:
    """Import an optional library; raise a UserError telling how to install it when missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra(package, extra) from error


def missing_extra(package: str, extra: str) -> UserError:
    """Return the error for an optional library that is not installed."""
    return UserError(
        f"data.source: {package} is not installed; run: pip install 'resnorm_jax[{extra}]'"
    )
