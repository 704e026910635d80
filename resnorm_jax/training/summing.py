"""Sums over devices that round alike, however many processes the devices belong to."""

from typing import Any

import jax
from jax import lax

from resnorm_jax.training.processes import current


def summed(tree: Any, axis_name: str) -> Any:
    """Return each leaf summed over the devices of an axis.

    Within a process XLA adds on CPUs in the order of the devices. Between processes gloo adds each part
    of an array in another order, and the last bits would depend on the number of processes: there the
    values are gathered and added in that order. GPUs and TPUs have one library for both.
    """
    if not (current().several and jax.default_backend() == "cpu"):
        return lax.psum(tree, axis_name)
    parts = lax.all_gather(tree, axis_name)
    count = jax.tree.leaves(parts)[0].shape[0]

    def add(index: jax.Array, total: Any) -> Any:
        return jax.tree.map(lambda sum_, part: sum_ + part[index], total, parts)

    # A loop, which XLA does not join to what follows; joined to it, the same sums round otherwise.
    return lax.fori_loop(1, count, add, jax.tree.map(lambda part: part[0], parts))
