"""Attention where the positions of a row are shared out over devices: each asks for its own."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

from resnorm_jax.ops.layout import positions

Attend = Callable[[dict[str, Any]], jax.Array]


def by_own_queries(attend: Attend, arrays: dict[str, Any]) -> jax.Array:
    """Return ``attend(arrays)``; where positions are shared out, each device attends for its queries.

    XLA gathers keys and values before, and sums their gradients after. Queries that the devices do not
    divide are left to XLA. Each device drops weights of its own.

    Args:
      attend: of arrays by name; what it returns has the queries on axis 1.
      arrays: ``query [B, T, H, Dh]``; ``mask`` and ``bias``, broadcastable to ``[B, H, T, S]``, and
        ``dropout_key``, each of which may be None; others are whole on each device.
    """
    over = positions()
    if over is None or arrays["query"].shape[1] % over.size:
        return attend(arrays)
    own = PartitionSpec(None, over.axis)
    specs = {name: PartitionSpec() for name in arrays} | {"query": own}
    for name in ("mask", "bias"):
        array = arrays[name]
        if array is not None and array.ndim > 1 and array.shape[-2] > 1:
            specs[name] = PartitionSpec(*(None,) * (array.ndim - 2), over.axis)

    def on_device(arrays: dict[str, Any]) -> jax.Array:
        key = arrays["dropout_key"]
        place = lax.axis_index(over.axis)
        return attend({
            **arrays, "dropout_key": None if key is None else jax.random.fold_in(key, place)
        })  # fmt: skip

    return jax.shard_map(
        on_device, mesh=over.mesh, in_specs=(specs,), out_specs=own, axis_names={over.axis},
        check_vma=False,
    )(arrays)  # fmt: skip
