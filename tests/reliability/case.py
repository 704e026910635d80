"""A wrong input, as data: what is given, and what the one line about it must say.

Each module ``corpus_NAME.py`` beside this one has a list ``CASES``; `run_cases.run` runs one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """A wrong input. ``{d}`` in arguments and texts stands for the case's own empty directory,
    ``{configs}`` for the configs.
    """

    name: str  # unique, e.g. "npz/deflate stream damaged"
    argv: tuple[str, ...]  # ("train", "--config=...", ...) or ("resnorm", "predict", ...)
    says: str  # a regular expression that the one line on stderr must match: the place, and the fix
    files: Callable[[Path], None] | None = None  # writes the case's files into its directory
    status: int = 2  # 0 for a valid input that used to be refused
