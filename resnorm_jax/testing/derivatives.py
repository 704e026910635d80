"""Assertions about derivatives: right along random directions, finite at awkward rows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.testing.comparison import assert_finite, wide

Leaves = list[jax.Array]
STEP = 1e-3  # of an argument's size; the difference quotient is of fourth order: errors ~ STEP^4
FLOOR = 1e-10  # rounding of the difference quotient, of |cotangent| |output| / |argument|


def assert_gradients(
    fn: Callable[..., jax.Array],
    *args: Any,
    tolerance: float = 1e-6,
    directions: int = 3,
    modes: Sequence[str] = ("reverse", "forward"),
    seed: int = 0,
) -> None:
    """Assert that the derivatives of ``fn`` are those of its values, in reverse and forward mode.

    In float64, along random directions of one argument after the other, with a random cotangent
    (the plain sum of a layer norm has no gradient at all), against central differences of fourth
    order. An error is measured against the length of the gradient: the tolerance means the same at
    every size.

    Unlike `chex.assert_numerical_grads` it also finds a gradient that `jax.lax.stop_gradient` takes
    away: chex puts another function in its place while it looks.

    Args:
      fn: the function; it must compute in float64 when given float64.
      *args: arrays, or trees of arrays, all differentiated. ``fn`` must be smooth near them.
      tolerance: of the gradient's length.
      directions: random directions per array.
      modes: ``"reverse"``, ``"forward"`` or both; a ``custom_vjp`` has no forward mode.
      seed: of the directions and the cotangent.

    Raises:
      AssertionError: naming mode and argument, or the dtype if ``fn`` leaves float64.

    >>> import jax, jax.numpy as jnp
    >>> from resnorm_jax import layer_norm
    >>> x = jax.random.normal(jax.random.key(0), (3, 8))
    >>> assert_gradients(layer_norm, x, jnp.linspace(0.5, 2, 8), jnp.ones(8))
    """
    rng = np.random.default_rng(seed)
    paths, structure = jax.tree_util.tree_flatten_with_path(args)
    with jax.enable_x64(True):
        leaves = [jnp.asarray(wide(leaf)) for _, leaf in paths]

        def flat(*leaves: jax.Array) -> jax.Array:
            return fn(*jax.tree.unflatten(structure, leaves))

        out = flat(*leaves)
        if out.dtype != jnp.float64:
            raise AssertionError(
                f"fn returns {out.dtype} for float64: its digits cannot be checked"
            )
        weights = jnp.asarray(rng.normal(size=out.shape))
        gradients = jax.vjp(flat, *leaves)[1](weights) if "reverse" in modes else None
        for number, (path, _) in enumerate(paths):
            name = f"argument {jax.tree_util.keystr(path)}"
            noise = FLOOR * _length(weights) * _length(out) / _size(leaves[number])
            for _ in range(directions):
                along = jnp.asarray(rng.normal(size=leaves[number].shape))
                expected = _numerical(flat, leaves, number, along, weights)
                length = abs(expected)
                if gradients is not None:
                    gradient = gradients[number]
                    length = max(length, _length(gradient))
                    found = float(jnp.vdot(gradient, along))
                    _compare(found, expected, length, noise, tolerance, f"reverse mode, {name}")
                if "forward" in modes:
                    found = float(jnp.vdot(weights, _pushed(flat, leaves, number, along)))
                    _compare(found, expected, length, noise, tolerance, f"forward mode, {name}")


def _compare(
    found: float, expected: float, length: float, noise: float, tolerance: float, what: str
) -> None:
    error = abs(found - expected)
    if not error <= tolerance * length + noise:
        relative = error / length if length > 0 else np.inf
        raise AssertionError(
            f"{what}: off by {relative:.3g} of the gradient's length, tolerance {tolerance:.3g}: "
            f"along a random direction found {found:.12g}, differences give {expected:.12g}"
        )


def _pushed(flat: Callable, leaves: Leaves, number: int, along: jax.Array) -> jax.Array:
    """Tangent of the output for a tangent of one argument."""

    def one(leaf: jax.Array) -> jax.Array:
        return flat(*leaves[:number], leaf, *leaves[number + 1 :])

    try:
        return jax.jvp(one, (leaves[number],), (along,))[1]
    except TypeError as error:  # a custom_vjp
        raise AssertionError(
            f"fn has no forward mode; leave it out by modes=('reverse',): {error}"
        ) from error


def _numerical(
    flat: Callable, leaves: Leaves, number: int, along: jax.Array, weights: jax.Array
) -> float:
    """Derivative of ``vdot(weights, flat)`` along a direction of one argument, by differences."""
    step = STEP * _size(leaves[number])

    def moved(steps: int) -> np.ndarray:
        leaf = leaves[number] + steps * step * along
        return wide(flat(*leaves[:number], leaf, *leaves[number + 1 :]))

    quotient = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * step)
    return float(np.vdot(wide(weights), quotient))


def _length(array: jax.Array) -> float:
    return float(jnp.linalg.norm(array.ravel()))


def _size(array: jax.Array) -> float:
    """Root mean square, or 1 for an array of zeros."""
    size = _length(array) / max(1, array.size) ** 0.5
    return size if size > 0 else 1.0


def awkward_rows(width: int, dtype: Any = jnp.float32) -> dict[str, np.ndarray]:
    """Rows at which norms divide by nothing, take a root of nothing, overflow or underflow."""
    normal = np.random.default_rng(0).normal(size=width)
    single = np.zeros(width)
    single[width // 2] = 3.0
    huge = min(1e15, float(jnp.finfo(dtype).max) / 8)
    return {
        "zero": np.zeros(width),
        "constant 3": np.full(width, 3.0),
        "constant 0.1": np.full(width, 0.1),  # its mean is rounded
        "constant 1e4": np.full(width, 1e4),
        "single-element": single,
        "huge": huge * normal / np.abs(normal).max(),
        "tiny": 1e-20 * normal,  # its square is 0
    }


def assert_safe_rows(
    fn: Callable[[jax.Array], jax.Array],
    width: int,
    *,
    rows: dict[str, np.ndarray] | None = None,
    dtype: Any = jnp.float32,
    seed: int = 0,
) -> None:
    """Assert that awkward rows have finite values, gradients and second derivatives.

    The rows: all zero, constant (one whose mean is rounded, one large), one element that is not
    zero, elements up to 1e15, and elements near 1e-20. Padding and dead features make such rows in
    every real batch.

    Args:
      fn: the function, row by row.
      width: length of a row.
      rows: rows by name, in place of the usual ones.
      dtype: of the rows.
      seed: of the cotangent, and of the direction of the second derivative.

    Raises:
      AssertionError: naming the row and what is not finite.

    >>> from resnorm_jax import layer_norm
    >>> assert_safe_rows(layer_norm, width=5)
    """
    rows = awkward_rows(width, dtype) if rows is None else rows
    rng = np.random.default_rng(seed)
    x = jnp.asarray(np.stack(list(rows.values())), dtype)
    weights, along = (jnp.asarray(rng.normal(size=x.shape), dtype) for _ in range(2))

    def gradient(x: jax.Array) -> jax.Array:
        return jax.vjp(fn, x)[1](weights)[0]

    first, second = jax.jvp(gradient, (x,), (along,))
    for what, array in {"output": fn(x), "gradient": first, "second derivative": second}.items():
        for name, row in zip(rows, array, strict=True):
            assert_finite(row, f"{what} of a row that is {name}")
