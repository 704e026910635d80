"""Argument parsing whose mistakes are one line."""

import argparse
from typing import NoReturn

from resnorm_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` that raises UserError in place of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message and where to find help."""
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help")
