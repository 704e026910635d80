"""Ways to add, as pure functions of arrays."""

import jax
import jax.numpy as jnp


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
      ValueError: if the shapes differ (an accidental broadcast would be silent).

    Source: He et al. 2015 (arXiv 1512.03385), eq. 1.

    >>> import jax.numpy as jnp
    >>> residual(jnp.array([1.0, 2.0]), jnp.array([0.5, -1.0])).tolist()
    [1.5, 1.0]
    """
    check_shapes(x, branch)
    return scaled(x, skip_scale) + scaled(branch, branch_scale).astype(x.dtype)


def drop_path(branch: jax.Array, rate: float | jax.Array, key: jax.Array | None) -> jax.Array:
    r"""Stochastic depth: drop the whole branch of a sample with probability ``rate``.

    $$ \frac{k_i}{1 - p} F(x_i), \quad k_i \sim \mathrm{Bernoulli}(1 - p) $$

    ``branch * keep / (1 - rate)`` with ``keep ~ Bernoulli(1 - rate)`` drawn once for each index of
    the first axis, so that the expectation is ``branch``.

    Args:
      branch: ``[B, ...]``.
      rate: drop probability in [0, 1). A Python 0 does nothing and needs no key.
      key: random key. Fold in the device index under pmap, or all devices drop alike.

    Returns:
      Array of ``branch``'s shape and dtype.

    Raises:
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
    keep = 1 - jnp.asarray(rate, jnp.float32)
    shape = branch.shape[:1] + (1,) * (branch.ndim - 1)
    kept = jax.random.bernoulli(key, keep, shape)
    return jnp.where(kept, branch / keep.astype(branch.dtype), 0).astype(branch.dtype)


def check_shapes(x: jax.Array, branch: jax.Array) -> None:
    """Raise ValueError if a stream and its branch have different shapes."""
    if x.shape != branch.shape:
        raise ValueError(
            f"the stream has shape {x.shape}, its branch {branch.shape}: must be equal"
        )


def scaled(x: jax.Array, scale: float | jax.Array) -> jax.Array:
    """Return ``scale * x`` in ``x``'s dtype; a Python 1 costs nothing."""
    if isinstance(scale, int | float) and scale == 1:
        return x
    return x * jnp.asarray(scale, x.dtype)
