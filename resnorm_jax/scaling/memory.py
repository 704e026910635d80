"""Memory of a device by part: what goes into the compiled step, and what XLA needs beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.scaling.collectives import Collective, collectives
from resnorm_jax.scaling.step import Step
from resnorm_jax.training.step import told

# The parts of a device's memory in a step. The first four are the arrays' own bytes; with the rest of
# the state they make what the program takes in.
PARTS = (
    "parameters", "optimizer state", "averages", "batch", "rest of the state", "temporaries",
    "new outputs",
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """What XLA says of a compiled step.

    Attributes:
      devices: that it was compiled for.
      memory: bytes of each of `PARTS`, on each device.
      collectives: of a step.
    """

    devices: int
    memory: Mapping[str, int]
    collectives: tuple[Collective, ...]


def program(step: Step, devices: int, rows: int) -> Program:
    """Compile the step for ``devices`` of this machine, with ``rows`` on each; nothing is run.

    Raises:
      UserError: the device's compiler says nothing of memory.
    """
    parallel = step.over(jax.local_devices()[:devices])
    compiled = parallel.lower(step.state, step.batch(rows * devices)).compile()
    said: Any = compiled.memory_analysis()
    if said is None:
        raise UserError(f"jax: the compiler of {jax.default_backend()} says nothing of memory")
    seen = told(step.batch(rows), step.options.by_length)  # the step reads a mask or lengths
    known = {
        "parameters": tree_bytes(step.state.params),
        "optimizer state": tree_bytes(step.state.opt_state),
        "averages": tree_bytes(step.state.ema),
        "batch": tree_bytes(seen),
    }
    # Keys, counters and running statistics.
    rest = said.argument_size_in_bytes - sum(known.values())
    memory = {
        **known,
        "rest of the state": rest,
        "temporaries": said.temp_size_in_bytes,
        "new outputs": said.output_size_in_bytes - said.alias_size_in_bytes,
    }
    return Program(devices, memory, tuple(collectives(compiled.as_text(), devices)))


def tree_bytes(tree: Any) -> int:
    """Return the bytes of a pytree of arrays or shapes."""
    return sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(tree))
