"""The article's formulas that are not functions of this library already, as pure functions.

A1 is `rn.residual`, A3 `rn.layer_norm`, A4 `rn.std_layer_norm`. A8 is a misprint of A3 and not built.
"""

from collections.abc import Callable

import jax

from resnorm_jax.arguments import check_axes, check_real
from resnorm_jax.ops.norms import layer_norm
from resnorm_jax.ops.residual import residual

Branch = Callable[[jax.Array], jax.Array]


def plain_block(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """A2, section 4.1: ``H = X + ReLU(X W1 + b1)``.

    Args:
      x: ``[..., D]``.
      weight: ``[D, D]``, input first (the article writes columns, W1 X).
      bias: ``[D]``.

    Returns:
      Array of ``x``'s shape and dtype.

    >>> import jax.numpy as jnp
    >>> plain_block(jnp.array([1.0, -2.0]), jnp.eye(2), jnp.zeros(2)).tolist()
    [2.0, -2.0]
    """
    _check(x, weight, bias)
    return residual(x, jax.nn.relu(x @ weight + bias))


def combined_block(
    x: jax.Array,
    weight: jax.Array,
    bias: jax.Array,
    gamma: jax.Array,
    beta: jax.Array,
    *,
    epsilon: float = 1e-6,
) -> jax.Array:
    """A5, section 4.3: ``H = X + ReLU(gamma LN(F) + beta)`` with ``F = ReLU(LN(X) W1 + b1)``.

    Args:
      x: ``[..., D]``.
      weight: ``[D, D]``, input first.
      bias: ``[D]``.
      gamma: ``[D]``, scale of the second norm; the first has none.
      beta: ``[D]``, its offset.
      epsilon: of both norms, inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    >>> import jax.numpy as jnp
    >>> one = jnp.ones(2)
    >>> combined_block(jnp.array([1.0, 3.0]), jnp.eye(2), 0 * one, one, 0 * one).round(3).tolist()
    [1.0, 4.0]
    """
    _check(x, weight, bias)
    inner = jax.nn.relu(layer_norm(x, epsilon=epsilon) @ weight + bias)
    return residual(x, jax.nn.relu(layer_norm(inner, gamma, beta, epsilon=epsilon)))


def _check(x: jax.Array, weight: jax.Array, bias: jax.Array) -> None:
    for name, array in (("x", x), ("weight", weight), ("bias", bias)):
        check_real(name, array)
    check_axes(x=(x, "... D"), weight=(weight, "D D"), bias=(bias, "D"))


def pre_norm(
    x: jax.Array,
    branch: Branch,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    epsilon: float = 1e-6,
) -> jax.Array:
    """A6, section 2.1: ``x + F(LN(x))``, norm first, then the layer, then the addition.

    Args:
      x: ``[..., D]``.
      branch: F; it keeps the shape.
      scale: ``[D]`` or None.
      bias: ``[D]`` or None.
      epsilon: of the norm, inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    >>> import jax.numpy as jnp
    >>> pre_norm(jnp.array([1.0, 3.0]), lambda h: 2 * h).round(3).tolist()
    [-1.0, 5.0]
    """
    return residual(x, branch(layer_norm(x, scale, bias, epsilon=epsilon)))


def post_norm(
    x: jax.Array,
    branch: Branch,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    epsilon: float = 1e-6,
) -> jax.Array:
    """A7, sections 3.1 and 5.2: ``LN(x + F(x))``, as in Vaswani et al. 2017; see `pre_norm`.

    >>> import jax.numpy as jnp
    >>> post_norm(jnp.array([1.0, 3.0]), lambda h: 2 * h).round(3).tolist()
    [-1.0, 1.0]
    """
    return layer_norm(residual(x, branch(x)), scale, bias, epsilon=epsilon)
