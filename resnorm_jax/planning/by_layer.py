"""What may differ by layer in a text that is repeated: how far attention sees, and the rotary base."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from resnorm_jax.errors import ChoiceError, UserError
from resnorm_jax.planning.form import ALL
from resnorm_jax.schema import number
from resnorm_jax.sizes import check_sizes

# Of a layer among others that have a window: no sequence is as long.
FAR = 2**30
BASE = 10_000.0


def numbers_by_layer(
    depth: int, window: Any = None, rotary: bool = False, rotary_base: Any = None
) -> list[Mapping[str, Any]]:
    """Return what positions are to each layer: ``window`` and ``rotary_base`` of `LayerNumbers`.

    Args:
      depth: layers of the stack.
      window: how far a query sees to either side, as in `TransformerEncoderLayer`.
      rotary: whether positions enter by rotation.
      rotary_base: of the rotation, as there.

    Raises:
      ChoiceError: naming the field that does not fit.
    """
    if rotary_base is not None and not rotary:
        raise ChoiceError("rotary_base: not read without rotary positions; leave it out")
    windows = cycled("window", window, depth, _window)
    bases = cycled("rotary_base", rotary_base, depth, _base) if rotary else [None] * depth
    if all(w is None for w in windows):
        return [{"rotary_base": base} for base in bases]
    reach = [FAR if w is None else w for w in windows]
    return [{"window": w, "rotary_base": b} for w, b in zip(reach, bases, strict=True)]


def cycled(field: str, given: Any, depth: int, read: Callable[[Any], Any]) -> list[Any]:
    """Return the value of each layer from one value, one a layer, or a text that is repeated.

    In the text ``"all+64*2"`` parts follow each other, ``*2`` says for how many layers a part holds (1
    without it), and after the last part the first one follows again. This differs from norms by layer,
    whose parts are not repeated.

    Args:
      field: for messages.
      given: value, sequence or text.
      depth: layers.
      read: from a part to its value.

    Raises:
      ChoiceError: for a text with more layers than there are, or a sequence of another length.

    >>> cycled("window", "all+64*2", 5, str)
    ['all', '64', '64', 'all', '64']
    """
    if isinstance(given, list | tuple):
        if len(given) != depth:
            raise ChoiceError(f"{field}: {len(given)} values for {depth} layers; give one a layer")
        return [read(one) for one in given]
    if not isinstance(given, str):
        return [read(given)] * depth
    pattern = [read(part) for part, count in _parts(field, given) for _ in range(count)]
    if len(pattern) > max(depth, 1) and len(set(pattern)) > 1:
        raise ChoiceError(
            f"{field}: {given!r} names {len(pattern)} layers, and there are {depth}; leave out the rest"
        )
    return [pattern[layer % len(pattern)] for layer in range(depth)]


def pattern_text(values: Sequence[Any]) -> str:
    """Return the shortest text of `cycled` that stands for values by layer.

    >>> pattern_text(["all", "64", "64", "all", "64"])
    'all+64*2'
    """
    size = next(
        n for n in range(1, len(values) + 1)
        if all(value == values[k % n] for k, value in enumerate(values))
    )  # fmt: skip
    runs: list[list[Any]] = []
    for value in values[:size]:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    return "+".join(f"{value}" + (f"*{count}" if count > 1 else "") for value, count in runs)


def _parts(field: str, text: str) -> list[tuple[str, int]]:
    found = []
    for part in text.split("+"):
        value, star, count = (piece.strip() for piece in part.partition("*"))
        if star and not (
            count.isascii() and count.isdecimal() and 0 < len(count) < 6 and int(count)
        ):
            raise ChoiceError(f"{field}: {count!r} in {text!r} is not a number of layers")
        found.append((value, int(count) if star else 1))
    return found


def _window(value: Any) -> int | None:
    if value is None or value == ALL:
        return None
    try:
        read = number(value, int) if isinstance(value, str) else value
        check_sizes(window=read)
    except UserError as error:
        said = str(error).removeprefix("window: ")
        raise ChoiceError(f"window: {said}; give positions to either side, or 'all'") from None
    return int(read)


def _base(value: Any) -> float:
    if value is None:
        return BASE
    try:
        read = number(value, float) if isinstance(value, str) else value
        check_sizes(rotary_base=read)
    except UserError as error:
        raise ChoiceError(f"rotary_base: {str(error).removeprefix('rotary_base: ')}") from None
    return float(read)
