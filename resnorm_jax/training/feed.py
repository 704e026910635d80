"""Batches on their way to the devices while the step before runs."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from resnorm_jax.data.pipeline import Batch, real_rows
from resnorm_jax.training.devices import Spread
from resnorm_jax.training.doors import Door
from resnorm_jax.training.phases import Phases

Numbered = tuple[int, Batch]


def put_ahead(
    parallel: Door, phases: Phases, numbered: Iterator[Sequence[Numbered]]
) -> Iterator[tuple[int, int, Spread, int]]:
    """Yield ``(index, updates, batch, rows)``: of the first update, and how many rows are no fillers.

    When a batch is yielded, on the devices, what comes after it is on its way.

    Args:
      parallel: puts batches onto the devices.
      phases: told of the time.
      numbered: global batches of host arrays, or this process's shares of them, by index; those that
        are given together make the updates of one call.
    """
    ready: deque[tuple[int, int, Spread, int]] = deque()
    while True:
        with phases("data"):
            found = next(numbered, None)
        if found is not None:
            batches = [batch for _, batch in found]
            with phases("dispatch"):
                alone = len(batches) == 1
                put = parallel.put(batches[0]) if alone else parallel.put_several(batches)
                rows = sum(real_rows(batch) for batch in batches)
                ready.append((found[0][0], len(batches), put, rows))
        if found is None and not ready:
            return
        if found is None or len(ready) > 1:
            yield ready.popleft()


def together(
    numbered: Iterator[Numbered], most: int, ends: Callable[[int], bool]
) -> Iterator[Sequence[Numbered]]:
    """Yield what each call of the training step is given: ``most`` batches, or one.

    Indices ``k most`` to ``(k + 1) most - 1`` go together if their shapes are alike and nothing is to
    be done between them. So a run that goes on from a checkpoint has the calls that it would have had.

    Args:
      numbered: batches by index, one after the other.
      most: updates of a call.
      ends: whether something is to be done after the update of an index.
    """
    block: list[Numbered] = []
    for index, batch in numbered:
        block.append((index, batch))
        if (index + 1) % most == 0:
            yield from _calls(block, most, ends)
            block = []
    yield from _calls(block, most, ends)


def _calls(
    block: list[Numbered], most: int, ends: Callable[[int], bool]
) -> list[Sequence[Numbered]]:
    shapes = {tuple(array.shape for array in batch.values()) for _, batch in block}
    whole = len(block) == most and len(shapes) == 1
    if most > 1 and whole and not any(ends(index) for index, _ in block[:-1]):
        return [block]
    return [[one] for one in block]
