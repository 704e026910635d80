"""Sums over devices that round alike, however many processes the devices belong to."""

from typing import Any

import jax
from jax import lax

from resnorm_jax.training.processes import current


def summed(tree: Any, axis_name: str | tuple[str, ...]) -> Any:
    """Return each leaf summed over the devices of an axis.

    Within a process XLA adds on CPUs in the order of the devices. Between processes gloo adds each part
    of an array in another order, and the last bits would depend on the number of processes: there the
    values are gathered and added in that order. GPUs and TPUs have one library for both.
    """
    if not _by_gloo():
        return lax.psum(tree, axis_name)
    return _added(lax.all_gather(tree, axis_name))


def scattered(array: jax.Array, axis_name: str, dimension: int) -> jax.Array:
    """Return this device's part, along a dimension, of the sum over the devices of an axis.

    It rounds as `summed` does.
    """
    if not _by_gloo():
        return lax.psum_scatter(array, axis_name, scatter_dimension=dimension, tiled=True)
    count, shape = lax.axis_size(axis_name), list(array.shape)
    shape[dimension : dimension + 1] = [count, shape[dimension] // count]
    parts = array.reshape(shape)
    return _added(lax.all_to_all(parts, axis_name, dimension, 0))


def _by_gloo() -> bool:
    return current().several and jax.default_backend() == "cpu"


def _added(parts: Any) -> Any:
    """Return the sum over the first axis of each leaf, in order."""
    leaves = jax.tree.leaves(parts)
    if not leaves:
        return parts
    count = leaves[0].shape[0]

    def add(index: jax.Array, total: Any) -> Any:
        return jax.tree.map(lambda sum_, part: sum_ + part[index], total, parts)

    # A loop, which XLA does not join to what follows; joined to it, the same sums round otherwise.
    return lax.fori_loop(1, count, add, jax.tree.map(lambda part: part[0], parts))
