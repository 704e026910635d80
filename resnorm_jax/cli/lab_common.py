"""What the lab's commands read from their command lines: one name for one thing.

A noun in the plural takes names or numbers by comma (but ``--seeds`` how many), one in the singular
takes one. What is measured is ``--config`` or a run directory; ``--only`` names the parts to measure;
``--output`` is a folder.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnorm_jax.cli.start import ending_at_once
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.schema import KEY_SEED, Rule, number
from resnorm_jax.sizes import RATE, SIZES

if TYPE_CHECKING:
    from resnorm_jax.cli.arguments import Parser
    from resnorm_jax.config import Config

EXAMPLES = {int: "3,24", float: "1e-3,3e-3"}


def add_config(parser: "Parser", default: str) -> None:
    """Add ``--config``; what `read_config` reads is ``chosen.config or default``."""
    parser.add_argument(
        "--config",
        metavar="CONFIG",
        help=f"FILE.py[:ARGUMENT] or NAME[:ARGUMENT], as resnorm train's; {default} if left out",
    )


def add_run(parser: "Parser", **how: Any) -> None:
    """Add ``RUN``, and which of its checkpoints: ``--seed`` and ``--checkpoint``."""
    parser.add_argument("run", type=Path, metavar="RUN", **{"help": "run directory", **how})
    parser.add_number(
        "--seed",
        int,
        KEY_SEED,
        metavar="N",
        help="of a run, whose checkpoint; the first if left out",
    )
    parser.add_argument(
        "--checkpoint", choices=("best", "last"), help="which of them; as scored if left out"
    )


def add_arrangements(parser: "Parser", default: str) -> None:
    """Add ``--arrangements``, which `arrangement_names` reads."""
    parser.add_argument(
        "--arrangements", metavar="A,B", help=f"names by comma, `usual` or `all`; {default}"
    )


def add_only(parser: "Parser", what: str) -> None:
    """Add ``--only`` for the parts of what a command measures; see `names`."""
    parser.add_argument(
        "--only", type=_only, default=(), metavar="A,B", help=f"only these {what}; all if left out"
    )


def add_output(parser: "Parser", files: str, default: str | None = None) -> None:
    """Add ``--output``, the folder of a command's page and JSON."""
    otherwise = f"{default} if left out" if default else "nothing is written if left out"
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=f"folder for {files}; {otherwise}"
    )


def deprecated(command: str, old: str, new: str) -> None:
    """Say on stderr that an option had another spelling before, which the next release drops."""
    print(
        f"{command}: {old} is deprecated and ends with the next release; write {new}",
        file=sys.stderr,
    )


def _only(text: str) -> tuple[str, ...]:
    found = names(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; write A,B")
    return () if found == ("all",) else found


def names(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated text, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def read_config(text: str, **changes: int | None) -> "Config":
    """Return the checked config of ``FILE.py[:ARGUMENT]``, with the changes that are not None."""
    # Imported here, as below: --help should not wait for jax.
    with ending_at_once():
        from resnorm_jax.config_file import read_config
        from resnorm_jax.interop.init_from import checked_config

    config = read_config(text)
    config.update({name: value for name, value in changes.items() if value is not None})
    return checked_config(config.to_dict())


def arrangement_names(text: str) -> tuple[str, ...]:
    """Return the arrangements of ``A,B``, of ``all``, or of ``usual``: rows that say so.

    Raises:
      UserError: for a name that no row has.
    """
    with ending_at_once():
        from resnorm_jax import arrangements

    if text in ("all", "usual"):
        return tuple(row.name for row in arrangements.rows() if row.usual or text == "all")
    given = [name.strip() for name in text.split(",")]
    known = arrangements.names()
    for name in given:
        try:
            arrangements.get(name)
        except UserError:
            raise UserError(
                f"--arrangements: unknown name {name!r}; {nearest(name, known)}"
            ) from None
    return tuple(dict.fromkeys(arrangements.get(name).name for name in given))


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
