"""Schemes: how a Transformer normalizes and how it adds, each in one place, by family.

A family's file holds its rows (norm slots, scales, init rules, sources) beside the pure functions by
which their streams are read and written. See README.md in this folder for the walk from a row to
what runs in a layer.
"""

from resnorm_jax.registry import Registry
from resnorm_jax.schemes import (
    by_depth,
    classic,
    data_gates,
    gates,
    hyper,
    inside,
    linear_maps,
    manifold,
    memory,
    orders,
    scheduled,
    two_streams,
)
from resnorm_jax.schemes.classic import DEFAULT
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import ADD, Stream

FAMILIES = {
    "classic": classic.ROWS,
    "scaled by depth": by_depth.ROWS,
    "orders of sublayers": orders.ROWS,
    "inside the branches": inside.ROWS,
    "learned gates": gates.ROWS,
    "gates of the data": data_gates.ROWS,
    "linear maps of the stream": linear_maps.ROWS,
    "two streams": two_streams.ROWS,
    "many streams": (*hyper.ROWS, *manifold.ROWS),
    "memory of earlier layers": memory.ROWS,
    "changing over training": scheduled.ROWS,
}
ARRANGEMENTS: Registry[Arrangement] = Registry(
    "arrangement", (row for rows in FAMILIES.values() for row in rows)
)
# A stream is registered with the first arrangement that has it.
STREAMS: Registry[Stream] = Registry(
    "stream", {s.name: s for s in (ADD, *(row.stream for row in ARRANGEMENTS.rows()))}.values()
)

__all__ = ["ADD", "ARRANGEMENTS", "DEFAULT", "FAMILIES", "STREAMS"]
