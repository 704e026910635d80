"""Numbers as files write them; Python's own reading takes ``1_000`` and other scripts' digits too."""

import math


def is_plain(text: str) -> bool:
    """Return whether a text holds nothing that Python alone reads as part of a number."""
    return text.isascii() and "_" not in text


def plain_number(word: str) -> float:
    """Return the number that a word writes; NaN where it writes none."""
    try:
        return float(word) if is_plain(word) else math.nan
    except ValueError:
        return math.nan
