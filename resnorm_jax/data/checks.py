"""Small checks and helpers shared by the data sources."""

import importlib
from pathlib import Path
from types import ModuleType

from resnorm_jax.data.files import file_fault
from resnorm_jax.errors import UserError


def check_file(field: str, path: str | Path) -> Path:
    """Return the path as a ``Path``; raise a UserError naming ``field`` if it is no file."""
    fault = file_fault(path)
    if fault and fault.startswith("no such file"):
        raise UserError(f"{field}: no file at {str(path)!r}; check the path")
    if fault:
        raise UserError(f"{field}: {str(path)!r}: {fault}")
    return Path(path)


def import_extra(module: str, package: str, extra: str, field: str = "data.source") -> ModuleType:
    """Import an optional library; raise a UserError telling how to install it when missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise missing_extra(package, extra, field) from error


def missing_extra(package: str, extra: str, field: str = "data.source") -> UserError:
    """Return the error for an optional library that is not installed."""
    return UserError(
        f"{field}: {package} is not installed; run: pip install 'resnorm_jax[{extra}]'"
    )
