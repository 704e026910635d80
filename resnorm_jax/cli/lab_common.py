"""What the lab's commands read from their command lines."""

from typing import TYPE_CHECKING

from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.schema import Rule, number
from resnorm_jax.sizes import RATE, SIZES

if TYPE_CHECKING:
    from resnorm_jax.config import Config

EXAMPLES = {int: "3,24", float: "1e-3,3e-3"}


def read_config(text: str) -> "Config":
    """Return the checked config of ``FILE.py[:ARGUMENT]``."""
    # Imported here, as below: --help should not wait for jax.
    with ending_at_once():
        from resnorm_jax.config import from_dict
        from resnorm_jax.config_file import read_config

    return from_dict(read_config(text).to_dict())


def arrangement_names(text: str) -> tuple[str, ...]:
    """Return the arrangements of ``A,B``, of ``all``, or of ``usual``: rows that say so.

    Raises:
      UserError: for a name that no row has.
    """
    with ending_at_once():
        from resnorm_jax import arrangements

    if text in ("all", "usual"):
        return tuple(row.name for row in arrangements.rows() if row.usual or text == "all")
    names = [name.strip() for name in text.split(",")]
    known = arrangements.names()
    for name in names:
        try:
            arrangements.get(name)
        except UserError:
            raise UserError(
                f"--arrangements: unknown name {name!r}; {nearest(name, known)}"
            ) from None
    return tuple(dict.fromkeys(arrangements.get(name).name for name in names))


def numbers(option: str, text: str, kind: type = float, rule: Rule = RATE) -> tuple:
    """Return the numbers of a comma-separated text, each once; none of an empty one.

    Raises:
      UserError: for what is no such number, or out of its range.
    """
    found = []
    for part in (p.strip() for p in text.split(",") if text):
        try:
            value = number(part, kind)
        except UserError as error:
            raise UserError(f"{option}: {error}; write e.g. {EXAMPLES[kind]}") from None
        rule.check(option, value)
        found.append(value)
    return tuple(dict.fromkeys(found))


def depths(text: str) -> tuple[int, ...]:
    """Return the whole numbers of layers of a comma-separated text; none of an empty one.

    Raises:
      UserError: for what is not a whole number of layers.
    """
    return numbers("--depths", text, int, SIZES["depth"])
