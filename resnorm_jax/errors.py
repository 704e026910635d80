"""How a run ends early: mistakes that a person can mend and how they are told, and divergence."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a config, a data file, a command line or a run directory.

    Commands print it as one line, without a traceback, and exit with status 2. The message names the
    field or file:line, the value found, and the likely fix.
    """


class ChoiceError(UserError):
    """A choice of a model that does not fit. The message starts with the field's own name.

    A config's layer puts ``config.model.`` before it.
    """


class ShapeError(ValueError, AssertionError):
    """An argument of a rank or shape that does not fit, found by chex."""


class DtypeError(TypeError, AssertionError):
    """An argument of a dtype that does not fit, found by chex."""


class DivergedError(RuntimeError):
    """The loss is not a finite number any more."""


class Preempted(BaseException):
    """A signal asked a run to end. Not an Exception: nothing but a command's end may catch it.

    Attributes:
      number: of the signal.
      saved: what was saved before, for people: ``"seed 0 saved at step 20"``; "" where there was
        nothing to save.
    """

    def __init__(self, number: int, saved: str = "") -> None:
        super().__init__(number, saved)
        self.number, self.saved = number, saved


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return a hint naming the choice nearest to ``name``, or listing all when none is near."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "choose one of: " + ", ".join(known)


def check_choice(field: str, name: str, choices: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``choices``; raise a UserError naming the nearest otherwise."""
    known = list(choices)
    if name not in known:
        raise UserError(f"{field}: unknown value {name!r}; {nearest(name, known)}")
    return name
