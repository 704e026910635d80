"""Argument parsing whose mistakes are one line."""

import argparse
from collections.abc import Mapping
from typing import NoReturn

from resnorm_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that raises UserError in place of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message and where to find help."""
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")


def usage(first: str, rows: Mapping[str, str], last: str) -> str:
    """Return the help text of a command that has subcommands: name to what it does."""
    lines = [f"  {name:<10}{text}" for name, text in rows.items()]
    return "\n".join([f"usage: {first}", "", *lines, "", last])
