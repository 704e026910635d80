"""Arrays that lie over the devices of several processes, made of what each host has; and back."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from resnorm_jax.training.first_runs import begun_together


def several_processes(devices: Sequence[jax.Device]) -> bool:
    """Return whether devices belong to more than one process."""
    return len({device.process_index for device in devices}) > 1


def laid_from_host(leaf: Any, sharding: Sharding) -> jax.Array:
    """Return an array that each process has whole as one over all devices; one that is stays so."""
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
        return leaf
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def in_parts(leaf: Any) -> bool:
    """Return whether no process has all of an array."""
    return isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    )


def whole_on_host(tree: Any) -> Any:
    """Return copies of arrays on the host, whole in every process; all processes call it alike.

    One array after the other: it is for a moment whole on each device.
    """
    return jax.tree.map(_whole, tree)


def _whole(leaf: Any) -> np.ndarray:
    if not in_parts(leaf):
        return np.array(leaf)
    return np.array(_gathering(leaf.sharding.mesh)(leaf).addressable_data(0))


@lru_cache
def _gathering(mesh: Mesh) -> Any:
    """Return the program that brings an array whole onto each device."""

    def whole(leaf: jax.Array) -> jax.Array:
        return leaf

    compiled = jax.jit(whole, out_shardings=NamedSharding(mesh, PartitionSpec()))
    return begun_together(compiled, "whole", several=True)
