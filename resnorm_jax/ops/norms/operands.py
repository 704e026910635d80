"""What norms are given: checked, in the right dtype, and laid along the axes of the statistics."""

from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.arguments import (
    as_mask,
    check_alike,
    check_axes,
    check_fits,
    check_kept,
    check_numbers,
    check_real,
)
from resnorm_jax.errors import ShapeError
from resnorm_jax.ops.statistics import Axes


def affine(
    normed: jax.Array,
    scale: Any,
    bias: Any,
    axes: Axes,
    names: tuple[str, str] = ("scale", "bias"),
) -> jax.Array:
    """Return ``normed * scale + bias``, each laid along ``axes``; None leaves it out.

    ``names`` are what a caller calls them, for errors.
    """
    if scale is not None:
        normed = normed * _fit(scale, normed, axes, names[0])
    if bias is not None:
        normed = normed + _fit(bias, normed, axes, names[1])
    return normed


def _fit(parameter: jax.Array, x: jax.Array, axes: Axes, name: str) -> jax.Array:
    """Lay a parameter along the normalized axes of ``x``, in ``x``'s dtype."""
    check_kept(name, parameter, "x", x.dtype)
    parameter = jnp.asarray(parameter, x.dtype)
    features = tuple(x.shape[a] for a in axes)
    if parameter.shape == features:
        return parameter.reshape([n if a in axes else 1 for a, n in enumerate(x.shape)])
    try:
        fits = jnp.broadcast_shapes(parameter.shape, x.shape) == x.shape
    except ValueError:
        fits = False
    if not fits or parameter.ndim != x.ndim:
        raise ShapeError(
            f"{name} has shape {parameter.shape}; it must have the normalized shape {features}, "
            f"or rank {x.ndim} and broadcast to {x.shape}"
        )
    return parameter


def floating(x: Any, name: str = "x") -> jax.Array:
    """Return ``x [..., D]`` as a floating-point array: integers become float32; refuse complex ones."""
    check_real(name, x)
    check_axes(**{name: (x, "... D")})
    return inexact(x)


def inexact(x: Any) -> jax.Array:
    """Return ``x`` as an array of floating-point or complex numbers: integers become float32."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def check_norm(
    x: Any, mask: Any, dtype: Any = None, branch: Any = None, **parameters: Any
) -> jax.Array | None:
    """Check what a norm of real or complex numbers is given; return the mask as booleans.

    Raises:
      ShapeError: if ``x`` has no axis, a mask does not broadcast to it, a branch has another shape.
      TypeError: if the mask is one of numbers, ``x`` is not, or an imaginary part would be lost.
    """
    mask = as_mask("mask", mask)
    check_numbers("x", x)
    check_axes(x=(x, "... D"))
    of_complex = jnp.iscomplexobj(x)
    if dtype is not None and of_complex:
        check_kept("x", x, "dtype", dtype)
    for name, value in parameters.items():
        check_kept(name, value, "x", jnp.complex64 if of_complex else jnp.float32)
    if branch is not None:
        check_alike("branch", branch, "x", x, broadcasts=True)
    if mask is not None:
        check_fits("mask", mask, x.shape, "x", "a mask of positions is mask[..., None]")
    return mask
