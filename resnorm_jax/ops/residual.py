"""Ways to add, as pure functions of arrays."""

import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_alike, check_axes, check_fits, check_kept
from resnorm_jax.errors import DtypeError


def residual(
    x: jax.Array,
    branch: jax.Array,
    *,
    skip_scale: float | jax.Array = 1.0,
    branch_scale: float | jax.Array = 1.0,
) -> jax.Array:
    r"""The residual connection ``skip_scale * x + branch_scale * branch``; by default ``H = X + F(X)``.

    $$ H = a x + b F(x) $$

    Args:
      x: stream, any shape.
      branch: the sublayer's output ``F(x)``, of the same shape.
      skip_scale: number, or array that broadcasts to ``x``. A Python 1.0 costs nothing.
      branch_scale: likewise.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      ValueError: if the shapes differ (an accidental broadcast would be silent), or a scale does not
        broadcast to ``x``.
      TypeError: if ``x`` has no room for an imaginary part or for fractions of the others.

    Source: He et al. 2015 (arXiv 1512.03385), eq. 1.

    >>> import jax.numpy as jnp
    >>> residual(jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0])).tolist()
    [1.5, 1.0]
    """
    check_shapes(x, branch)
    for name, scale in (("skip_scale", skip_scale), ("branch_scale", branch_scale)):
        _check_scale(name, scale, x)
    check_kept("branch", branch, "x", x.dtype)
    return scaled(x, skip_scale) + scaled(branch, branch_scale).astype(x.dtype)


def drop_path(branch: jax.Array, rate: float | jax.Array, key: jax.Array | None) -> jax.Array:
    r"""Stochastic depth: drop the whole branch of a sample with probability ``rate``.

    $$ \frac{k_i}{1 - p} F(x_i), \quad k_i \sim \mathrm{Bernoulli}(1 - p) $$

    ``branch * keep / (1 - rate)`` with ``keep ~ Bernoulli(1 - rate)`` drawn once for each index of
    the first axis, so that the expectation is ``branch``.

    Args:
      branch: ``[B, ...]``, floating point.
      rate: drop probability in [0, 1). A Python 0 does nothing and needs no key.
      key: random key. Fold in the device index under pmap, or all devices drop alike.

    Returns:
      Array of ``branch``'s shape and dtype.

    Raises:
      TypeError: if ``branch`` holds integers, which the scaling would round.
      ValueError: if a Python ``rate`` lies outside [0, 1), or the key is missing.

    Source: Huang et al. 2016 (arXiv 1603.09382), eq. 2 and 5, scaled while training rather than at
    test time, as every implementation does since.

    >>> import jax, jax.numpy as jnp
    >>> drop_path(jnp.ones((4, 1)), 0.5, jax.random.key(0)).shape
    (4, 1)
    """
    if isinstance(rate, int | float):
        if not 0 <= rate < 1:
            raise ValueError(f"drop_path rate is {rate}; it must lie in [0, 1)")
        if rate == 0:
            return branch
    if key is None:
        raise ValueError("drop_path needs a random key when its rate is not 0")
    check_axes(branch=(branch, "B ..."))
    if not jnp.issubdtype(branch.dtype, jnp.inexact):
        raise TypeError(
            f"branch is {branch.dtype}, in which what is kept, over 1 - rate, has no room"
        )
    _check_key(key)
    keep = 1 - jnp.asarray(rate, jnp.float32)
    shape = branch.shape[:1] + (1,) * (branch.ndim - 1)
    kept = jax.random.bernoulli(key, keep, shape)
    return jnp.where(kept, branch / keep.astype(branch.dtype), 0).astype(branch.dtype)


def check_shapes(x: jax.Array, branch: jax.Array) -> None:
    """Raise ShapeError, a ValueError, if a stream and its branch have different shapes."""
    check_alike("branch", branch, "x", x)


def _check_scale(name: str, scale: float | jax.Array, x: jax.Array) -> None:
    if not (isinstance(scale, int | float) and scale == 1):
        check_fits(name, scale, x.shape, "x")
        check_kept(name, scale, "x", x.dtype)


def _check_key(key: jax.Array) -> None:
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if key.shape != () if typed else (key.dtype != jnp.uint32 or key.ndim != 1):
        raise DtypeError(f"key is {key.dtype}{list(key.shape)}; give one key: jax.random.key(0)")


def scaled(x: jax.Array, scale: float | jax.Array) -> jax.Array:
    """Return ``scale * x`` in ``x``'s dtype; a Python 1 costs nothing."""
    if isinstance(scale, int | float) and scale == 1:
        return x
    return x * jnp.asarray(scale, x.dtype)
