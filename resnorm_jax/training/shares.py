"""What a device has of parameters and gradients, and how it travels, inside a step over a mesh."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from resnorm_jax.training.partition import DATA, FSDP, ROWS, SEQUENCE, TENSOR, along, only
from resnorm_jax.training.summing import scattered, summed


def gathered(params: Any, specs: Any, mesh: Mesh) -> Any:
    """Return whole parameters of a device's shares, along ``tensor`` laid out as they were."""

    def gather(share: jax.Array, spec: PartitionSpec) -> jax.Array:
        axis = along(spec, FSDP)
        return share if axis is None else lax.all_gather(share, FSDP, axis=axis, tiled=True)

    return _inside(lambda shares: jax.tree.map(gather, shares, specs), specs, mesh)(params)


def summed_shares(gradient: Any, specs: Any, mesh: Mesh) -> Any:
    """Return the sum over all rows: of what is cut this device's share, of the rest all."""

    def scatter(whole: jax.Array, spec: PartitionSpec) -> jax.Array:
        axis = along(spec, FSDP)
        return whole if axis is None else scattered(whole, FSDP, axis)

    def sum_up(gradient: Any) -> Any:
        leaves, structure = jax.tree.flatten(jax.tree.map(scatter, gradient, specs))
        cut = [along(spec, FSDP) is not None for spec in jax.tree.leaves(specs)]
        found = _summed_together(leaves, cut, DATA if mesh.shape[DATA] > 1 else None)
        return jax.tree.unflatten(structure, found)

    return _inside(sum_up, specs, mesh)(gradient)


def _summed_together(leaves: list[Any], cut: list[bool], over: str | None) -> list[Any]:
    """Sum what is cut over ``over``, the rest over all rows: each in one go."""
    rest = summed([leaf for leaf, is_cut in zip(leaves, cut, strict=True) if not is_cut], ROWS)
    parts = [leaf for leaf, is_cut in zip(leaves, cut, strict=True) if is_cut]
    parts = parts if over is None else summed(parts, over)
    found = {True: iter(parts), False: iter(rest)}
    return [next(found[is_cut]) for is_cut in cut]


def _inside(function: Callable[[Any], Any], specs: Any, mesh: Mesh) -> Callable[[Any], Any]:
    """Return a function of trees done on what each device with the same rows has of them.

    XLA knows no way for what is sent along one axis to stay cut along another.
    """
    if mesh.shape[TENSOR] * mesh.shape[SEQUENCE] == 1:
        return function
    own = jax.tree.map(partial(only, axis=TENSOR), specs)
    return jax.shard_map(
        function, in_specs=(own,), out_specs=own, axis_names={TENSOR, SEQUENCE}, check_vma=False
    )
