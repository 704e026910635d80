"""Assertion about JAX's transformations: they must not change what a function computes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.testing.comparison import assert_close, epsilon_of

Function = Callable[[jax.Array], jax.Array]


def _mapped_over_devices(fn: Function) -> Function:
    """``fn`` by pmap, on as many devices as divide the rows."""

    def way(x: jax.Array) -> jax.Array:
        count = max(n for n in range(1, jax.local_device_count() + 1) if len(x) % n == 0)
        cut = x.reshape(count, len(x) // count, *x.shape[1:])
        out = jax.pmap(fn, devices=jax.local_devices()[:count])(cut)
        return out.reshape(len(x), *out.shape[2:])

    return way


def _scanned(fn: Function) -> Function:
    return lambda x: jax.lax.scan(lambda carry, row: (carry, fn(row)), 0, x)[1]


WAYS: dict[str, Callable[[Function], Function]] = {
    "vjp": lambda fn: fn,
    "jit": jax.jit,
    "vmap": jax.vmap,
    "pmap": _mapped_over_devices,
    "scan": _scanned,
    "remat": jax.checkpoint,
}


def assert_transforms_agree(fn: Function, x: jax.Array, *, tolerance: float | None = None) -> None:
    """Assert that jit, vmap, pmap, scan and remat leave values and gradients as they are.

    Args:
      fn: a function that treats the entries of the first axis alike and apart, and takes one entry
        alone as well; axes counted from the end.
      x: input of rank 2 or more. pmap runs on as many devices as divide its first axis.
      tolerance: of the largest value; None for 16 epsilons of the dtype, 1.9e-6 for float32.

    Raises:
      AssertionError: naming the transformation that differs, or that raises.

    >>> import jax
    >>> from resnorm_jax import rms_norm
    >>> assert_transforms_agree(rms_norm, jax.random.normal(jax.random.key(0), (2, 3, 8)))
    """
    x = jnp.asarray(x)
    expected = fn(x)
    weights = jnp.asarray(np.random.default_rng(0).normal(size=expected.shape), expected.dtype)
    bound = 16 * epsilon_of(expected, x) if tolerance is None else tolerance
    gradient = None
    for name, transform in WAYS.items():
        out, pulled = _value_and_gradient(name, transform(fn), x, weights)
        gradient = pulled if gradient is None else gradient  # of vjp, the first
        assert_close(out, expected, bound, f"output of {name}(fn) against fn")
        assert_close(pulled, gradient, bound, f"gradient of {name}(fn) against that of fn")


def _value_and_gradient(
    name: str, way: Function, x: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    try:
        out, pullback = jax.vjp(way, x)
        return out, pullback(weights)[0]
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise AssertionError(f"{name}(fn) raised {type(error).__name__}: {reason}") from error
