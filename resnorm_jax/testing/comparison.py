"""What the assertions share: errors relative to the largest value, and messages that say where."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def place(array: np.ndarray) -> tuple[int, ...]:
    """Return the index of the largest element of ``array``, the first NaN if there is one."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(array)), array.shape))


def wide(array: Any) -> np.ndarray:
    """Return ``array`` in float64 NumPy, whatever its dtype and place."""
    return np.asarray(array).astype(np.float64)


def epsilon_of(*arrays: Any) -> float:
    """Return the machine epsilon of the coarsest dtype among ``arrays``."""
    return max(float(jnp.finfo(array.dtype).eps) for array in arrays)


def assert_close(found: Any, expected: Any, tolerance: float, what: str) -> None:
    """Raise unless ``found`` is ``expected`` to ``tolerance`` times the largest ``|expected|``.

    Absolute where ``expected`` is all zero. A NaN or infinity is never close to anything.
    """
    found, expected = wide(found), wide(expected)
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: shape {found.shape}, expected {expected.shape}")
    if not expected.size:
        return
    largest = np.max(np.abs(expected))
    with np.errstate(invalid="ignore"):
        error = np.abs(found - expected) / (largest if largest > 0 else 1.0)
    error = np.where(np.isfinite(error), error, np.inf)
    at = place(error)
    if error[at] > tolerance:
        raise AssertionError(
            f"{what}: off by {error[at]:.3g} of the largest value {largest:.6g}, tolerance "
            f"{tolerance:.3g}, at index {at}: found {found[at]:.9g}, expected {expected[at]:.9g}; "
            f"{np.mean(error > tolerance):.0%} of the elements are off"
        )


def assert_finite(array: Any, what: str) -> None:
    """Raise, naming the first place, unless all elements of ``array`` are finite."""
    array = wide(array)
    bad = ~np.isfinite(array)
    if bad.any():
        at = place(bad)
        raise AssertionError(f"{what} is {array[at]} at index {at} ({bad.sum()} of {bad.size})")
