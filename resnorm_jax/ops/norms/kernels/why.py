"""Why a norm is not computed by a kernel, in words."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from resnorm_jax.ops.statistics import Axes, normalized_axes

WIDEST = 65536  # columns
MOST = 2**31 - 1  # elements: offsets in a kernel are of 32 bits
DTYPES = ("float32", "bfloat16", "float16")


def not_by_rows(
    x: Any, scale: Any, bias: Any, axes: Axes, mask: Any = None, axis_name: str | None = None
) -> str | None:
    """Return why a norm is not one of rows with parameters of a row's shape; None if it is."""
    if mask is not None:
        return "it has a mask"
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return f"it is of {x.dtype} numbers"
    if axis_name is not None:
        return f"its statistics are shared over the mapped axis {axis_name!r}"
    first = x.ndim - len(axes)
    if not axes or axes != tuple(range(first, x.ndim)):
        return f"its statistics run over the axes {axes} of {x.ndim}, not over the last ones"
    features = x.shape[first:]
    for name, parameter in {"scale": scale, "bias": bias}.items():
        if parameter is not None and parameter.shape not in (features, (1,) * first + features):
            return f"its {name} has shape {parameter.shape}, not that of a row, {features}"
    return None


def not_a_kernels(shape: Sequence[int], dtypes: dict[str, Any]) -> str | None:
    """Return why no kernel serves rows of this shape and these dtypes; None if one does."""
    for name, dtype in dtypes.items():
        if jnp.dtype(dtype).name not in DTYPES:
            return f"{name} is of {jnp.dtype(dtype).name}; kernels take {', '.join(DTYPES)}"
    if not all(isinstance(n, int) for n in shape):
        return f"shape {tuple(shape)} has dimensions without a number"
    width, elements = shape[-1], math.prod(shape)
    if elements == 0:
        return f"there is nothing to compute in shape {tuple(shape)}"
    if width > WIDEST:
        return f"rows are {width} wide; kernels take up to {WIDEST}"
    if elements > MOST:
        return f"there are {elements} elements; kernels take up to {MOST}"
    return None


def why_not(
    x: Any,
    scale: Any = None,
    bias: Any = None,
    *,
    axis: int | Axes = -1,
    mask: Any = None,
    axis_name: str | None = None,
) -> str | None:
    """Return why no kernel would compute `layer_norm` or `rms_norm` of these on an NVIDIA GPU.

    Args:
      x: array, or `jax.ShapeDtypeStruct`.
      scale: likewise, or None.
      bias: likewise, or None.
      axis: axis or axes of the statistics.
      mask: as of `layer_norm`.
      axis_name: as of `layer_norm`.

    Returns:
      One line, or None if a kernel serves. What shows only where a program is lowered, the platform and
      how its arrays are laid over devices, is not known here: ``implementation="triton"`` says it.

    Raises:
      ValueError: if ``axis`` is out of range.

    >>> import jax.numpy as jnp
    >>> why_not(jnp.ones((2, 3)), axis=0)
    'its statistics run over the axes (0,) of 2, not over the last ones'
    """
    axes = normalized_axes(axis, x.ndim)
    given = {"x": x, "scale": scale, "bias": bias}
    dtypes = {name: array.dtype for name, array in given.items() if array is not None}
    width = math.prod(x.shape[a] for a in axes)
    return not_by_rows(x, scale, bias, axes, mask, axis_name) or not_a_kernels(
        (*x.shape[: x.ndim - len(axes)], width), dtypes
    )
