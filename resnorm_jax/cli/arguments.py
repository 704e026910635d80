"""Argument parsing whose mistakes are one line."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from resnorm_jax.errors import UserError
from resnorm_jax.schema import Rule, number, told


class Parser(argparse.ArgumentParser):
    """`argparse.ArgumentParser` whose mistakes are UserErrors of one line.

    Names of options are written in full; an option is not given twice with two values, nor an empty
    value. What `parse_args` returns has ``given``: the names of the arguments that were there.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs, allow_abbrev=False)
        for action in (None, "store"):
            self.register("action", action, _Once)

    def add_number(self, name: str, kind: type, rule: Rule, **how: Any) -> None:
        """Add an option that is a number within a range."""
        self.add_argument(name, type=lambda text: _number(text, kind, rule), **how)

    def parse_args(self, args: Sequence[str], namespace: Any = None) -> Any:  # type: ignore[override]
        """Return the arguments, and ``given``.

        Raises:
          UserError: for any mistake.
        """
        for argument in args:
            if not argument or (argument.startswith("--") and argument.endswith("=")):
                self.error(f"{argument.rstrip('=') or 'argument'}: empty; give a value")
        chosen = argparse.Namespace(given={})
        # argparse takes one that may be left out as absent where an option stands before it.
        mixed = any(action.nargs == "?" for action in self._get_positional_actions())
        parse = super().parse_intermixed_args if mixed else super().parse_args
        return parse(list(args), chosen)

    def error(self, message: str) -> NoReturn:
        """Raise UserError with the message and where to find help."""
        said = told(" ".join(message.removeprefix("argument ").split()), 300)
        raise UserError(f"{self.prog}: {said}; see {self.prog} --help")

    def not_read(self, chosen: argparse.Namespace, names: Sequence[str], why: str) -> None:
        """Raise UserError if one of these options was given, though nothing would read it."""
        for name in names:
            if chosen.given.get(name, getattr(chosen, name) is True):
                raise UserError(f"--{name.replace('_', '-')}: not read {why}; leave it out")


class _Once(argparse.Action):
    """Store a value, and refuse another."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        given = namespace.given
        if option_string and self.dest in given and getattr(namespace, self.dest) != values:
            parser.error(f"argument {option_string}: given twice, with two values; keep one")
        given[self.dest] = bool(option_string)
        setattr(namespace, self.dest, values)


def _number(text: str, kind: type, rule: Rule) -> Any:
    try:
        value = number(text, kind)
        rule.check("", value)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix(": ")) from None
    return value


def usage(first: str, rows: Mapping[str, str], last: str) -> str:
    """Return the help text of a command that has subcommands: name to what it does."""
    lines = [f"  {name:<10}{text}" for name, text in rows.items()]
    return "\n".join([f"usage: {first}", "", *lines, "", last])
