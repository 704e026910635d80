"""What functions and modules check of the arrays they are given, while a program is traced.

There are two kinds of checks. Ranks, shapes and dtypes that the documentation states are checked by
chex: `chex.disable_asserts` turns that off. What would change a result without a word (a mask of
numbers, an imaginary part or fractions that a cast takes away) is refused in any case. No compiled
program holds any of it.
"""

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.errors import DtypeError, ShapeError

UNTIL = "it will be an error in the next release"
# Modules whose lines are not the caller's.
BETWEEN = ("resnorm_jax.", "flax.", "jax.", "contextlib", "functools")


def check_axes(**given: tuple[Any, str]) -> None:
    """Check that arrays have the axes that their forms name, each letter with one extent.

    Args:
      **given: by the argument's name the array, or None, and its form: letters of axes, ``...`` for any
        axes, ``?`` behind a letter where an extent of 1 serves too.

    Raises:
      ShapeError: a ValueError, naming the argument, its shape, the wanted one and where that is from.

    >>> x, condition = jnp.ones((2, 5, 8)), jnp.ones((3, 4))
    >>> check_axes(x=(x, "B L D"), condition=(condition, "B? C"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    resnorm_jax.errors.ShapeError: condition has shape (3, 4); it must be [B, C] with B=2, as of x ...
    """
    known: dict[str, tuple[int, str]] = {}  # letter to extent and to whose it is
    arrays = {name: _array(array) for name, (array, _) in given.items() if array is not None}
    shapes = {name: array.shape for name, array in arrays.items()}
    for name, shape in shapes.items():
        letters = given[name][1].split()
        wanted = [_wanted(letter, known) for letter in letters]
        try:
            chex.assert_shape(arrays[name], wanted)
        except AssertionError:
            raise ShapeError(_not_of(name, letters, shapes, known)) from None
        for letter, extent in zip(*_aligned(letters, shape), strict=True):
            if not letter.endswith("?") or extent != 1:
                known.setdefault(letter.rstrip("?"), (extent, name))


def _wanted(letter: str, known: dict[str, tuple[int, str]]) -> Any:
    """Return what chex is asked of an axis."""
    if letter == "...":
        return ...
    found = known.get(letter.rstrip("?"))
    if found is None:
        return None
    return {1, found[0]} if letter.endswith("?") else found[0]


def _aligned(letters: list[str], shape: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return letters and extents without those under ``...``."""
    if "..." not in letters:
        return letters, list(shape)
    before = letters.index("...")
    after = len(letters) - before - 1
    kept = [*shape[:before], *shape[len(shape) - after :]]
    return letters[:before] + letters[before + 1 :], kept


def _not_of(
    name: str,
    letters: list[str],
    shapes: dict[str, tuple[int, ...]],
    known: dict[str, tuple[int, str]],
) -> str:
    plain = [letter.rstrip("?") for letter in letters]
    found = {letter: known[letter] for letter in plain if letter in known}
    text = f"{name} has shape {shapes[name]}; it must be [{', '.join(plain)}]"
    if found:
        extents = ", ".join(f"{letter}={extent}" for letter, (extent, _) in found.items())
        others = " and ".join(
            f"{other} {shapes[other]}" for other in {o for _, o in found.values()}
        )
        text += f" with {extents}, as of {others}"
    if "..." not in plain and len(plain) == len(shapes[name]) + 1 and plain[0] == "B":
        text += f"; for a batch of one give {name}[None]"
    return text


def check_fits(name: str, array: Any, shape: Sequence[int], form: str, fix: str = "") -> None:
    """Check that an array broadcasts to a shape, whose axes ``form`` names.

    Raises:
      ShapeError: naming the argument, both shapes and the fix.
    """
    if array is None:
        return
    try:
        chex.assert_is_broadcastable(np.shape(array), tuple(shape))
    except AssertionError:
        raise ShapeError(
            f"{name} has shape {np.shape(array)}; it must broadcast to {form} {tuple(shape)}"
            + (f"; {fix}" if fix else "")
        ) from None


def check_width(name: str, x: Any, field: str, width: int) -> None:
    """Check that ``x`` is real, and as wide along its last axis as a module's field says.

    Raises:
      ShapeError: naming both, and the shape.
      TypeError: for complex numbers.
    """
    check_real(name, x)
    check_axes(**{name: (x, "... D")})
    try:
        chex.assert_axis_dimension(_array(x), -1, width)
    except AssertionError:
        raise ShapeError(
            f"{name} has shape {x.shape}; its last axis must be {field}={width}"
        ) from None


def check_alike(name: str, array: Any, other: str, like: Any, *, broadcasts: bool = False) -> None:
    """Check that an array has another's shape.

    Args:
      name: of the argument.
      array: the argument.
      other: the other argument's name.
      like: the other argument.
      broadcasts: whether shapes that broadcast are taken, with a DeprecationWarning.

    Raises:
      ShapeError: naming the argument and both shapes.
    """
    array, like = _array(array), _array(like)
    try:
        chex.assert_equal_shape([array, like])
    except AssertionError:
        said = f"{name} has shape {array.shape}; it must have that of {other}, {like.shape}"
        if broadcasts and _broadcast(array.shape, like.shape):
            return deprecated(f"{said}; give jnp.broadcast_to({name}, {other}.shape)")
        raise ShapeError(said) from None


def _broadcast(*shapes: tuple[int, ...]) -> bool:
    try:
        jnp.broadcast_shapes(*shapes)
    except (TypeError, ValueError):
        return False
    return True


def check_integers(name: str, array: Any, what: str) -> None:
    """Check that an array holds integers.

    Raises:
      DtypeError: a TypeError, naming the argument, its dtype and what it must be.
    """
    if array is None:
        return
    try:
        chex.assert_type(array, int)
    except AssertionError:
        raise DtypeError(f"{name} is {_dtype(array)}; it must be integers, {what}") from None


def check_lengths(lengths: Any, **beside: tuple[Any, str]) -> None:
    """Check ``lengths [B]``: integers, one for each row of the arrays ``beside`` it.

    Floating-point numbers are taken, with a DeprecationWarning.
    """
    if lengths is None:
        return
    if jnp.issubdtype(_dtype(lengths), jnp.floating):
        deprecated(f"lengths is {_dtype(lengths)}; give integers, lengths.astype(int)")
    else:
        check_integers("lengths", lengths, "how many positions of each row are valid")
    check_axes(**beside, lengths=(lengths, "B"))


def check_real(name: str, array: Any) -> None:
    """Refuse complex numbers, and what is no number.

    Raises:
      TypeError: naming the argument and its dtype.
    """
    if array is None:
        return
    dtype = _dtype(array)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(
            f"{name} is {dtype}, whose imaginary part would be lost; give real numbers, such as "
            f"jnp.concatenate([{name}.real, {name}.imag], -1)"
        )
    check_numbers(name, array)


def check_numbers(name: str, array: Any) -> None:
    """Refuse what is no number, real or complex.

    Raises:
      TypeError: naming the argument and its dtype.
    """
    dtype = _dtype(array)
    if not (jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)):
        raise TypeError(f"{name} is {dtype}; it must be an array of numbers")


def check_kept(name: str, value: Any, other: str, dtype: Any) -> None:
    """Refuse a cast that takes an imaginary part, or digits behind the point, away.

    Args:
      name: of the argument that is cast.
      value: the argument, or None.
      other: name of the argument whose dtype it is cast to.
      dtype: that dtype.

    Raises:
      TypeError: naming both arguments and both dtypes.
    """
    if value is None:
        return
    for kind, what in ((jnp.complexfloating, "imaginary part"), (jnp.inexact, "fractions")):
        if jnp.issubdtype(_dtype(value), kind) and not jnp.issubdtype(dtype, kind):
            raise TypeError(
                f"{name} is {_dtype(value)} and {other} {jnp.dtype(dtype)}, in which its {what} would "
                f"be lost; cast {other} to {jnp.promote_types(_dtype(value), dtype)}"
            )


def parameter(name: str, value: Any, x: jax.Array) -> jax.Array:
    """Return a parameter in the dtype of ``x``; refuse one that broadcasts to another shape.

    Raises:
      ShapeError: if it does not broadcast to ``x``.
      TypeError: if it is complex and ``x`` is not.
    """
    check_kept(name, value, "x", x.dtype)
    check_fits(name, value, x.shape, "x")
    return jnp.asarray(value, x.dtype)


def as_mask(name: str, mask: Any) -> Any:
    """Return a mask as booleans, True where a position counts; None stays None.

    Integers 0 and 1 are taken as False and True. A mask of floating-point numbers may be one that is
    added to logits, 0 where a position counts, or one that is multiplied, 1 there: it is refused. Only
    one that can be seen to hold zeros and ones is taken, with a DeprecationWarning.

    Raises:
      TypeError: naming the argument and saying what to give.

    >>> as_mask("mask", np.array([1, 1, 0]))
    array([ True,  True, False])
    """
    if mask is None:
        return None
    mask = mask if hasattr(mask, "dtype") else np.asarray(mask)
    if mask.dtype == bool:
        return mask
    floating = jnp.issubdtype(mask.dtype, jnp.floating)
    values = _values(mask)
    ones = values is not None and bool(np.isin(values, (0, 1)).all())
    if jnp.issubdtype(mask.dtype, jnp.integer) and (ones or values is None):
        return mask != 0
    if floating and ones and values is not None and values.any():
        deprecated(f"{name} is {mask.dtype}; give booleans, {name} != 0")
        return mask != 0
    raise TypeError(
        f"{name} is {mask.dtype}, a mask of numbers; give booleans, True where a position counts: "
        f"{name} == 0 if it is 0 there (as what is added to logits), {name} != 0 if it is 1 there"
    )


def _values(array: Any) -> np.ndarray | None:
    """Return what an array holds; None where it is traced, or not all here."""
    if isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True):
        return None
    return np.asarray(array)


def _array(array: Any) -> Any:
    return array if hasattr(array, "shape") else np.asarray(array)


def _dtype(array: Any) -> Any:
    return array.dtype if hasattr(array, "dtype") else np.asarray(array).dtype


def deprecated(text: str) -> None:
    """Warn of a call that is still taken, at the line outside this package that made it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(BETWEEN):
        frame, level = frame.f_back, level + 1
    warnings.warn(f"{text}; {UNTIL}", DeprecationWarning, stacklevel=level)
