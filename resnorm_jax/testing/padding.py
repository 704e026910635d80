"""Assertion about masks: what lies under padding must not matter."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.arguments import as_mask, check_fits
from resnorm_jax.testing.comparison import assert_close

Named = dict[str, jax.Array]


def assert_padding_safe(
    fn: Callable[..., jax.Array],
    x: jax.Array,
    mask: jax.Array,
    *parameters: Any,
    fillers: Sequence[float] = (np.nan, np.inf, -1e4),
    tolerance: float = 1e-6,
) -> None:
    """Assert that masked positions change no valid output and no gradient, not even as NaN.

    Gradients are those of a random-weighted sum of the valid outputs. The gradient of ``x`` must be
    zero where masked.

    Args:
      fn: called as ``fn(x, mask, *parameters)``.
      x: input, floating point.
      mask: boolean, broadcastable to ``x``; True where an element counts.
      *parameters: arrays that are differentiated too.
      fillers: what is put in masked positions, one after the other.
      tolerance: of the largest value, output or gradient by gradient.

    Raises:
      AssertionError: naming the filler, and the output or gradient that it changes.

    If the output has not ``x``'s shape, as after pooling, all of it counts as valid.

    >>> import jax, jax.numpy as jnp
    >>> from resnorm_jax import layer_norm
    >>> x, mask = jax.random.normal(jax.random.key(0), (2, 4)), jnp.arange(4) < jnp.array([[4], [2]])
    >>> assert_padding_safe(lambda x, mask: layer_norm(x, mask=mask), x, mask)
    """
    x = jnp.asarray(x)
    mask = as_mask("mask", mask)
    check_fits("mask", mask, x.shape, "x", "a mask of positions is mask[..., None]")
    mask = jnp.broadcast_to(mask, x.shape)
    if bool(mask.all()):
        raise AssertionError("mask is True everywhere: there is no padding to check")
    expected = _observe(fn, jnp.where(mask, x, 0), mask, parameters)
    for filler in fillers:
        filled = jnp.where(mask, x, jnp.asarray(filler, x.dtype))
        found = _observe(fn, filled, mask, parameters)
        for name, array in expected.items():
            what = f"{name} with {filler:g} in masked positions, against 0 there"
            assert_close(found[name], array, tolerance, what)
        masked = jnp.where(mask, 0, found["gradient of x"])
        what = f"gradient of masked positions with {filler:g} there"
        assert_close(masked, jnp.zeros_like(masked), 0.0, what)


def _observe(fn: Callable, x: jax.Array, mask: jax.Array, parameters: tuple) -> Named:
    """Valid outputs and all gradients by name."""
    out, pullback = jax.vjp(lambda x, *parameters: fn(x, mask, *parameters), x, *parameters)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=out.shape), out.dtype)
    if out.shape == x.shape:
        weights = jnp.where(mask, weights, 0)
        out = jnp.where(mask, out, 0)
    gradients = pullback(weights)
    names = ["x", *(f"parameter {number}" for number in range(len(parameters)))]
    found = {"valid output": out}
    for name, gradient in zip(names, gradients, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            found[f"gradient of {name}{jax.tree_util.keystr(path)}"] = leaf
    return found
