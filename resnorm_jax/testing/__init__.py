"""Assertions for tests of norms and of other row-wise layers: yours, ours or anybody's.

Each takes a function ``fn(x) -> y`` (parameters go in through a closure), draws its own random
numbers from a fixed seed, and raises an AssertionError that says what failed, where and by how
much.

>>> from resnorm_jax import rms_norm, testing
>>> testing.assert_preserves_shape_and_dtype(rms_norm)
>>> testing.assert_safe_rows(rms_norm, width=4)
"""

from resnorm_jax.testing.derivatives import assert_gradients, assert_safe_rows
from resnorm_jax.testing.padding import assert_padding_safe
from resnorm_jax.testing.transforms import assert_transforms_agree
from resnorm_jax.testing.values import (
    assert_matches_float64,
    assert_preserves_shape_and_dtype,
    assert_scale_invariant,
    assert_shift_invariant,
)

__all__ = [
    "assert_gradients",
    "assert_matches_float64",
    "assert_padding_safe",
    "assert_preserves_shape_and_dtype",
    "assert_safe_rows",
    "assert_scale_invariant",
    "assert_shift_invariant",
    "assert_transforms_agree",
]
