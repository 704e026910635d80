"""What the lab's commands read from their command lines."""

from pathlib import Path
from typing import TYPE_CHECKING

from resnorm_jax.errors import UserError, nearest

if TYPE_CHECKING:
    from resnorm_jax.config import Config


def read_config(text: str) -> "Config":
    """Return the checked config of ``FILE.py[:ARGUMENT]``."""
    # Imported here, as below: --help should not wait for jax.
    from resnorm_jax.cli.train import load_config
    from resnorm_jax.config import from_dict

    return from_dict(load_config(text).to_dict())


def arrangement_names(text: str) -> tuple[str, ...]:
    """Return the arrangements of ``A,B``, of ``all``, or of ``usual``: rows that say so.

    Raises:
      UserError: for a name that no row has.
    """
    from resnorm_jax import arrangements

    if text in ("all", "usual"):
        return tuple(row.name for row in arrangements.rows() if row.usual or text == "all")
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = arrangements.names()
    for name in names:
        try:
            arrangements.get(name)
        except UserError:
            raise UserError(
                f"--arrangements: unknown name {name!r}; {nearest(name, known)}"
            ) from None
    return tuple(dict.fromkeys(arrangements.get(name).name for name in names))


def numbers(option: str, text: str) -> tuple[float, ...]:
    """Return the positive numbers of a comma-separated text; none of an empty one.

    Raises:
      UserError: for what is not a positive number.
    """
    found = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        try:
            value = float(part)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise UserError(f"{option}: {part!r} is not a positive number; write e.g. 1e-3,3e-3")
        found.append(value)
    return tuple(dict.fromkeys(found))


def depths(text: str) -> tuple[int, ...]:
    """Return the whole numbers of layers of a comma-separated text; none of an empty one.

    Raises:
      UserError: for what is not a whole number of at least 1.
    """
    found = numbers("--depths", text)
    for value in found:
        if value != int(value):
            raise UserError(f"--depths: {value:g} is not a whole number of layers")
    return tuple(int(value) for value in found)


def check_new(folder: Path) -> Path:
    """Return a folder that is to be written.

    Raises:
      UserError: if there is something in it, or in its place.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output: {folder} holds other files; name a new folder")
    return folder
