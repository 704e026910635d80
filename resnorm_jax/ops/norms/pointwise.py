"""Norms without statistics: ``scale * phi(alpha * x + shift) + bias`` for a bounded or slow phi."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from resnorm_jax.arguments import parameter
from resnorm_jax.ops.norms.operands import affine, floating
from resnorm_jax.ops.statistics import statistics_dtype


def _root(x: jax.Array) -> jax.Array:
    """``sqrt(|x|)`` with a gradient of 0 at 0, where it has none."""
    size = jnp.abs(x)
    return jnp.where(size > 0, jnp.sqrt(jnp.where(size > 0, size, 1)), 0)


def _odd(half: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Continue a function of x >= 0, with half(0) = 0, as an odd one.

    Not ``sign(x) half(|x|)``, whose derivative at 0 comes out as 0.
    """
    return lambda x: half(jnp.maximum(x, 0)) - half(jnp.maximum(-x, 0))


def _held(x: jax.Array) -> jax.Array:
    """Clip to where the square of ``x`` is finite; ``1 / x**2`` rounds to 0 long before."""
    return jnp.clip(x, -1e9, 1e9)


def _cubsign(x: jax.Array) -> jax.Array:
    """``x^3 / (|x|^3 + 1)``, beyond 1 in terms of 1 / x, as the cube would overflow."""
    large = jnp.abs(x) > 1
    small, inverse = jnp.where(large, 0, x), 1 / jnp.where(large, x, 1)
    beyond = jnp.sign(x) / (1 + jnp.abs(inverse) ** 3)
    return jnp.where(large, beyond, small**3 / (jnp.abs(small) ** 3 + 1))


# The functions of zlab-princeton/Derf (ViT/dynamic_erf.py, ViT/other_functions), under its names.
POINTWISE: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "erf": jax.lax.erf,
    "arctan": lambda x: 2 / jnp.pi * jnp.arctan(x),
    "isru": lambda x: _held(x) / jnp.sqrt(_held(x) ** 2 + 1),
    "expsign": _odd(lambda t: -jnp.expm1(-t)),
    "satursin": lambda x: jnp.sin(jnp.clip(x, -jnp.pi / 2, jnp.pi / 2)),
    "cubsign": _cubsign,
    "relsign": lambda x: _held(x) / (jnp.sqrt(_held(x) ** 2 + 1) + 1),
    "smoothsign": lambda x: x / (1 + jnp.abs(x)),
    "saturlog": _odd(lambda t: jnp.log1p(t) / (jnp.log1p(t) + 1)),
    "exproot": lambda x: -jnp.sign(x) * jnp.expm1(-_root(x)),
    "linear_clip": lambda x: jnp.clip(x, -1, 1),
    "logquad_clip": lambda x: jnp.clip(jnp.sign(x) * jnp.log1p(x * x), -1, 1),
    "logsign_clip": lambda x: jnp.clip(_odd(jnp.log1p)(x), -1, 1),
}


def pointwise_norm(
    x: jax.Array,
    alpha: jax.Array,
    shift: jax.Array | None = None,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    function: str = "tanh",
) -> jax.Array:
    """A bounded function in place of a norm: ``scale * phi(alpha * x + shift) + bias``.

    ``tanh`` without a shift is DyT, ``erf`` with one is Derf.

    Args:
      x: ``[..., D]``, floating point.
      alpha: scalar, 0.5 at first in both papers' vision models.
      shift: scalar or None; 0 at first.
      scale: ``[D]`` or None.
      bias: ``[D]`` or None.
      function: a key of `POINTWISE`.

    Returns:
      Array of ``x``'s shape and dtype.

    Raises:
      KeyError: if ``function`` is not known.

    Source: Zhu et al. 2025 (arXiv 2503.10622) (DyT); 2512.10938 (Derf); official code
    zlab-princeton/Derf.

    >>> import jax.numpy as jnp
    >>> print(pointwise_norm(jnp.array([0.0, 100.0]), 0.5, scale=jnp.array([2.0, 3.0])))
    [0. 3.]
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    inner = wide * parameter("alpha", alpha, wide)
    if shift is not None:
        inner = inner + parameter("shift", shift, wide)
    return affine(POINTWISE[function](inner), scale, bias, (x.ndim - 1,)).astype(x.dtype)
