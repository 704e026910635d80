"""Streams: what sublayers read from and write to. Pure functions over a fixed-shape carry.

``open`` makes the carry from the embedded input, ``read`` gives a branch its input, ``write`` takes
the branch's output in, ``close`` gives the stack's output. Parameters are declared as data; whoever
runs the stream creates them and hands them in by name.
"""

from resnorm_jax.ops.streams import (
    data_gates,
    gates,
    hyper,
    manifold,
    memory,
    multi,
    scheduled,
    single,
    weighted,
)
from resnorm_jax.ops.streams.spec import Carry, Scale, Site, Stream, StreamParameter
from resnorm_jax.registry import Registry

STREAMS: Registry[Stream] = Registry(
    "stream",
    (
        *single.ROWS,
        *weighted.ROWS,
        *gates.ROWS,
        *data_gates.ROWS,
        *scheduled.ROWS,
        *memory.ROWS,
        *multi.ROWS,
        *hyper.ROWS,
        *manifold.ROWS,
    ),
)

__all__ = ["STREAMS", "Carry", "Scale", "Site", "Stream", "StreamParameter"]
