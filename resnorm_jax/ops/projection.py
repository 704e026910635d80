"""Products of rows with a kernel, as ``dot_general=`` of flax.linen's dense layers."""

import math
from typing import Any

import jax
from jax import lax

from resnorm_jax.ops.layout import laid_over_devices


def rows_dot_general(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None, **options: Any
) -> jax.Array:
    """`jax.lax.dot_general` of ``x`` as a matrix of rows and ``kernel`` as a matrix.

    The values are the same. Going backward XLA's code for CPUs copies the whole gradient of an array
    of rank 3, transposed, before it multiplies; that of a matrix it reads as it lies.

    Args:
      x: ``[..., *K]``, with the contracted axes last.
      kernel: ``[*K, ...]``, with the contracted axes first.
      dimension_numbers: as of `jax.lax.dot_general`. What is contracted otherwise, batched, or laid
        over devices by its type goes there as it is.
      precision: as of `jax.lax.dot_general`.
      **options: as of `jax.lax.dot_general`.

    Returns:
      The axes of ``x`` that are left, then those of ``kernel``.

    >>> import jax.numpy as jnp
    >>> x, kernel = jnp.ones((2, 3, 4)), jnp.ones((4, 5))
    >>> rows_dot_general(x, kernel, (((2,), (0,)), ((), ()))).shape
    (2, 3, 5)
    """
    (x_axes, kernel_axes), batch = dimension_numbers
    lead = x.ndim - len(x_axes)
    last_with_first = (tuple(x_axes), tuple(kernel_axes)) == (
        tuple(range(lead, x.ndim)), tuple(range(len(kernel_axes))),
    )  # fmt: skip
    if not last_with_first or any(batch) or laid_over_devices(x) or laid_over_devices(kernel):
        return lax.dot_general(x, kernel, dimension_numbers, precision, **options)
    shape = x.shape[:lead] + kernel.shape[len(kernel_axes) :]
    size = math.prod(x.shape[lead:])
    rows = x.reshape(math.prod(x.shape[:lead]), size)
    matrix = kernel.reshape(size, math.prod(kernel.shape[len(kernel_axes) :]))
    as_matrices = (((1,), (0,)), ((), ()))
    return lax.dot_general(rows, matrix, as_matrices, precision, **options).reshape(shape)
