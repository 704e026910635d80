"""Out of memory, told as a plan of memory by part and the field to change."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from resnorm_jax.build import DEVICE_AXIS
from resnorm_jax.config import Config
from resnorm_jax.data import TrainBatches
from resnorm_jax.errors import UserError
from resnorm_jax.training import model_state
from resnorm_jax.training.loop import Run
from resnorm_jax.training.step import StepOptions, TrainState


class OutOfMemoryError(UserError):
    """What the config asks for does not fit in memory."""


# Part of the memory to the fields that make it less, best first.
FIELDS = {
    "activations": ("train.accumulate", "train.batch_size", "model.remat"),
    "batch": ("train.accumulate", "train.batch_size"),
    "parameters": ("model.width", "model.depth"),
    "gradients": ("model.width", "model.depth"),
    "optimizer state": ("optimizer.algorithm", "model.width", "model.depth"),
    "averages": ("train.ema", "model.width"),
}


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, of the device or of the host."""
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    known = "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
    return isinstance(error, jax.errors.JaxRuntimeError) and known


@contextmanager
def memory_told(config: Config, run: Run, first: Callable[[], TrainState]) -> Iterator[None]:
    """Turn what says that memory ran out into one line, after a table of memory by part.

    Args:
      config: of the run.
      run: its parts.
      first: makes the state; traced for its shapes alone.

    Raises:
      OutOfMemoryError: in place of what was raised inside.
    """
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        parts = memory_by_part(jax.eval_shape(first), _widest(config, run), run.parallel.options,
                               run.parallel.shares, run.parallel.split)  # fmt: skip
        print_parts(parts, run.console)
        raise OutOfMemoryError(
            memory_line(config, parts, run.watchdog.activity, run.parallel.devices[0].platform)
        ) from None


def _widest(config: Config, run: Run) -> dict[str, np.ndarray]:
    """Return a batch of the longest padded length."""
    examples, size = run.dataset.train, config.train.batch_size
    longest = examples.take(np.argsort(examples.lengths)[-size:])
    return TrainBatches(longest, size, run.buckets, config.seed).batch_at(0)


def memory_by_part(
    state: TrainState, batch: Mapping[str, Any], options: StepOptions, devices: int, split: int = 1
) -> dict[str, int]:
    """Return bytes on each device by part.

    Activations are what the backward pass is handed, found by tracing: what XLA needs beside it, or
    saves by joining operations, is not in it.

    Args:
      state: arrays or shapes.
      batch: the global batch.
      options: of the step.
      devices: over which rows are spread.
      split: devices that share out the optimizer's state and the averages.
    """
    parameters = _bytes(state.params)
    share = {k: v[: max(1, len(v) // devices // options.accumulate)] for k, v in batch.items()}
    return {
        "parameters": parameters,
        "gradients": parameters,
        "optimizer state": _bytes(state.opt_state) // split,
        "averages": _bytes(state.ema) // split,
        "batch": _bytes(batch) // devices,
        "activations": max(0, _residuals(state, share, options) - parameters),
    }


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(tree))


def _residuals(state: TrainState, batch: Mapping[str, Any], options: StepOptions) -> int:
    def kept(params: Any, collections: Any, rows: Mapping[str, jax.Array]) -> Any:
        def forward(params: Any) -> jax.Array:
            variables = {**collections, "params": params}
            return model_state._forward(options.apply, variables, rows, jax.random.key(0))[0]

        return jax.tree.leaves(jax.vjp(forward, params)[1])

    mapped = jax.vmap(kept, (None, None, 0), axis_name=DEVICE_AXIS)
    rows = {k: jax.ShapeDtypeStruct((1, *v.shape), v.dtype) for k, v in batch.items()}
    return _bytes(jax.eval_shape(mapped, state.params, state.collections, rows))


def memory_line(config: Config, parts: Mapping[str, int], activity: str, platform: str) -> str:
    """Return the line: what ran out, when, and the fields that make it less."""
    largest = max(parts, key=lambda name: parts[name])
    values = config.to_dict()
    fields = []
    for path in FIELDS[largest]:
        section, name = path.split(".")
        fields.append(f"{path} (now {values[section][name]})")
    line = (
        f"out of memory while {activity}: about {size_text(sum(parts.values()))} a device, most of "
        f"it {largest} ({size_text(parts[largest])}); change config.{' or '.join(fields)}"
    )
    if platform == "gpu":
        share = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")
        line += f"; JAX takes XLA_PYTHON_CLIENT_MEM_FRACTION={share} of the GPU: 0.95 gives more"
    return line


def print_parts(parts: Mapping[str, int], console: Console) -> None:
    """Print the table of memory by part."""
    table = Table("memory of a device", "bytes", title_justify="left")
    for name, size in parts.items():
        table.add_row(name, size_text(size))
    console.print(table)


def size_text(size: float) -> str:
    """Return bytes as a person reads them: ``"1.5 GiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
