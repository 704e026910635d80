"""ListOps sequences: the random grammar of the Long Range Arena, and an evaluator.

The grammar is that of github.com/google-research/long-range-arena (Tay et al. 2020,
arXiv:2011.04006), ``lra_benchmarks/data/listops.py``: at depth < ``max_depth`` a node is an
operator with probability 1/4, with 2 to ``max_args`` arguments (uniform), else a digit (uniform).
Random numbers are drawn with ``Random.random`` only, whose sequence Python keeps the same across
versions.
"""

import statistics
from collections.abc import Callable, Sequence

VOCABULARY = ("<pad>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "]")
FIRST_OPERATOR = 11
END = 15
OPERATOR_P = 0.25
ROOT_GUESS = {"[MIN": 0, "[MAX": 9, "[MED": 4}

OPERATORS: tuple[Callable[[list[int]], int], ...] = (
    min,
    max,
    lambda values: int(statistics.median(values)),
    lambda values: sum(values) % 10,
)


class TooLongError(Exception):
    """The tree under construction has reached the length limit."""


def grow(random: Callable[[], float], out: bytearray, limit: int, depth: int, max_args: int) -> int:
    """Append a random tree's tokens to ``out`` and return its value.

    Args:
      random: draws a float in [0, 1).
      out: token ids, extended in place.
      limit: raise ``TooLongError`` once an operator starts at or after this many tokens.
      depth: levels left; at 0 the node is a digit.
      max_args: most arguments of an operator, at least 2.

    Returns:
      The value of the tree, 0-9.
    """
    if not depth or random() > OPERATOR_P:
        value = int(random() * 10)
        out.append(value + 1)
        return value
    if len(out) >= limit:
        raise TooLongError
    slot = len(out)
    out.append(END)
    count = 2 + int(random() * (max_args - 1))
    values = [grow(random, out, limit, depth - 1, max_args) for _ in range(count)]
    operator = int(random() * 4)
    out[slot] = FIRST_OPERATOR + operator
    out.append(END)
    return OPERATORS[operator](values)


def draw(
    random: Callable[[], float], min_length: int, max_length: int, max_depth: int, max_args: int
) -> tuple[bytes, int] | None:
    """Draw one tree; None unless ``min_length < tokens < max_length`` (both strict, as in LRA).

    Returns:
      The token ids and the label.
    """
    out = bytearray()
    try:
        label = grow(random, out, max_length, max_depth - 1, max_args)
    except TooLongError:
        return None
    return (bytes(out), label) if min_length < len(out) < max_length else None


def evaluate(tokens: Sequence[int]) -> int:
    """Compute the value of one sequence of token ids, without padding.

    It shares nothing with the generator but the vocabulary.

    Raises:
      ValueError: the tokens are no complete expression.
    """
    stack: list[tuple[str, list[int]]] = [("", [])]
    for token in tokens:
        name = VOCABULARY[token]
        if name.startswith("["):
            stack.append((name, []))
        elif name == "]":
            operator, values = stack.pop()
            if not stack or not values:
                raise ValueError("not a ListOps expression: ']' without operator or arguments")
            stack[-1][1].append(_apply(operator, values))
        else:
            stack[-1][1].append(int(name))
    if len(stack) != 1 or len(stack[0][1]) != 1:
        raise ValueError("not a ListOps expression: incomplete or more than one")
    return stack[0][1][0]


def _apply(operator: str, values: list[int]) -> int:
    ordered, middle = sorted(values), len(values) // 2
    pair = ordered[middle] + ordered[middle - (len(values) % 2 == 0)]
    table = {"[MIN": ordered[0], "[MAX": ordered[-1], "[MED": pair // 2, "[SM": sum(values) % 10}
    return table[operator]
