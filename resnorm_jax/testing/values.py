"""Assertions about what a norm returns: shape, dtype, symmetries, digits."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.testing.comparison import assert_close, assert_finite, epsilon_of, wide

Function = Callable[[jax.Array], jax.Array]


def assert_preserves_shape_and_dtype(
    fn: Function,
    shape: Sequence[int] = (2, 3, 8),
    dtypes: Sequence[Any] = (jnp.float32, jnp.bfloat16, jnp.float16),
) -> None:
    """Assert that ``fn`` returns finite values of its input's shape and dtype.

    Args:
      fn: the function.
      shape: shape of the random input.
      dtypes: dtypes to try; a float64 is tried in x64 mode.

    Raises:
      AssertionError: naming the first dtype that fails.

    >>> from resnorm_jax import layer_norm
    >>> assert_preserves_shape_and_dtype(layer_norm, shape=(2, 5))
    """
    values = np.random.default_rng(0).normal(0.5, 1.5, tuple(shape))
    for dtype in map(jnp.dtype, dtypes):
        with jax.enable_x64(True) if dtype.itemsize > 4 else nullcontext():
            x = jnp.asarray(values, dtype)
            y = fn(x)
        chex.assert_shape(y, tuple(shape), custom_message=f"{dtype} input")
        chex.assert_type(y, dtype)
        assert_finite(y, f"output for {dtype} input")


def assert_shift_invariant(
    fn: Function, x: jax.Array, *, shift: float = 64.0, tolerance: float = 1e-4
) -> None:
    """Assert that ``fn(x + shift)`` is ``fn(x)``: what subtracts the mean must not see it.

    ``x`` is rounded first to what ``x + shift`` can hold, so that the sum itself loses nothing and
    the tolerance is about ``fn`` alone.

    Args:
      fn: the function.
      x: input, floating point.
      shift: what is added to every element; a power of two.
      tolerance: of the largest output. The default leaves room for a rounding of the shifted mean.

    Raises:
      AssertionError: naming the worst element.

    >>> import jax
    >>> from resnorm_jax import layer_norm
    >>> assert_shift_invariant(layer_norm, jax.random.normal(jax.random.key(0), (3, 8)))
    """
    x = jnp.asarray(x)
    moved = x + jnp.asarray(shift, x.dtype)
    x = moved - jnp.asarray(shift, x.dtype)
    assert_close(fn(moved), fn(x), tolerance, f"fn(x + {shift:g}) against fn(x)")


def assert_scale_invariant(
    fn: Function,
    x: jax.Array,
    *,
    factors: Sequence[float] = (0.5, 4.0, 1024.0),
    tolerance: float = 1e-5,
) -> None:
    """Assert that ``fn(k x)`` is ``fn(x)`` for k > 0: what divides by a length must not see it.

    Args:
      fn: the function.
      x: input, floating point; rows of about unit size, so that an epsilon of 1e-6 hides in the
        tolerance. With a larger epsilon raise the tolerance, or give a larger ``x``.
      factors: the k; powers of two, which cost no rounding.
      tolerance: of the largest output.

    Raises:
      AssertionError: naming the factor and the worst element.

    >>> import jax
    >>> from resnorm_jax import rms_norm
    >>> assert_scale_invariant(rms_norm, jax.random.normal(jax.random.key(0), (3, 8)))
    """
    x = jnp.asarray(x)
    expected = fn(x)
    for factor in factors:
        found = fn(x * jnp.asarray(factor, x.dtype))
        assert_close(found, expected, tolerance, f"fn({factor:g} x) against fn(x)")


def assert_matches_float64(
    fn: Function,
    oracle: Callable[[np.ndarray], np.ndarray],
    x: jax.Array,
    tolerance: float | None = None,
) -> None:
    """Assert that ``fn(x)`` is ``oracle(x)``, which computes in float64 NumPy.

    Write the oracle from the equation, not from the code under test; give rows with a large mean,
    where a one-pass variance loses all digits.

    Args:
      fn: the function.
      oracle: gets ``x`` in float64.
      x: input, floating point.
      tolerance: of the oracle's largest value; None for four epsilons of the output's dtype, 4.8e-7
        for float32.

    Raises:
      AssertionError: naming the worst element.

    >>> import jax, numpy as np
    >>> from resnorm_jax import rms_norm
    >>> def oracle(x):
    ...     return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    >>> assert_matches_float64(rms_norm, oracle, jax.random.normal(jax.random.key(0), (3, 8)))
    """
    x = jnp.asarray(x)
    found, expected = fn(x), oracle(wide(x))
    bound = 4 * epsilon_of(found) if tolerance is None else tolerance
    assert_close(found, expected, bound, f"{found.dtype} output against the float64 oracle")
