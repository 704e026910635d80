"""Batches on their way to the devices while the step before runs."""

from collections import deque
from collections.abc import Iterator

from resnorm_jax.data.pipeline import Batch, real_rows
from resnorm_jax.training.devices import Spread
from resnorm_jax.training.doors import Door
from resnorm_jax.training.phases import Phases


def put_ahead(
    parallel: Door, phases: Phases, numbered: Iterator[tuple[int, Batch]]
) -> Iterator[tuple[int, Spread, int]]:
    """Yield ``(index, batch, rows)``: the batch on the devices, and how many rows are no fillers.

    When a batch is yielded, the one after it is on its way.

    Args:
      parallel: puts batches onto the devices.
      phases: told of the time.
      numbered: global batches of host arrays, or this process's shares of them, by index.
    """
    ready: deque[tuple[int, Spread, int]] = deque()
    while True:
        with phases("data"):
            found = next(numbered, None)
        if found is not None:
            index, batch = found
            with phases("dispatch"):
                ready.append((index, parallel.put(batch), real_rows(batch)))
        if found is None and not ready:
            return
        if found is None or len(ready) > 1:
            yield ready.popleft()
