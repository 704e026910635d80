"""Batches of few shapes: bucketed by length, a pure function of (seed, step), fed by Grain.

A batch is a dict: ``x [B, L, ...]`` (tokens as int32), ``mask [B, L]`` bool, True where valid, and
``lengths [B]`` int32, which say the same (both absent for images), ``y [B]`` int32, ``weight [B]``
float32 (0 marks rows that only fill the batch).
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

from resnorm_jax.data.dataset import Examples
from resnorm_jax.data.row_arrays import blocks, counts, index_type, indices, shuffled

Batch = dict[str, np.ndarray]


class Share(dict[str, np.ndarray]):
    """The rows of a global batch that one of several processes reads.

    Attributes:
      real: rows of the global batch that are no fillers.
    """

    real: int = 0


def real_rows(batch: Batch) -> int:
    """Return how many rows of the global batch are no fillers."""
    return batch.real if isinstance(batch, Share) else int(batch["weight"].sum())


def cut(batch: Batch, share: slice) -> Share:
    """Return some rows of a global batch."""
    part = Share({name: values[share] for name, values in batch.items()})
    part.real = real_rows(batch)
    return part


@dataclass(frozen=True, eq=False)
class Plan:
    """Which rows go where.

    Attributes:
      rows: ``[S, B]``, batches one after another, -1 where a row only fills.
      edges: ``[S]``, padded lengths of these.
      order: ``[S]``, in which the batches are taken.
    """

    rows: np.ndarray
    edges: np.ndarray
    order: np.ndarray

    def __len__(self) -> int:
        return len(self.edges)

    def batch(self, index: int) -> tuple[np.ndarray, int]:
        """Return the rows ``[B]`` of a batch, and its padded length."""
        at = self.order[index]
        return self.rows[at], int(self.edges[at])


def _edges(examples: Examples, buckets: Sequence[int]) -> np.ndarray:
    """Return ascending edges that hold every row; images have one, their height."""
    longest = examples.x.shape[1] if examples.x.ndim == 4 else int(examples.lengths.max())
    inside = [] if examples.x.ndim == 4 else sorted(set(buckets))
    return np.array(inside if inside and inside[-1] >= longest else [*inside, longest])


def plan_batches(examples: Examples, edges: np.ndarray, size: int, order: np.ndarray) -> Plan:
    """Cut rows, taken in ``order``, into batches by bucket.

    What a bucket leaves over is promoted to the next longer one; what the last leaves over is
    filled with -1. So the batches are the rows by bucket, cut at every ``size``-th, and their number
    of each edge depends on the lengths only.
    """
    bucket = np.empty(len(order), np.min_scalar_type(len(edges)))
    for block in blocks(len(order)):
        bucket[block] = np.searchsorted(edges, examples.lengths[order[block]])
    upto = np.cumsum(counts(bucket, len(edges))) // size
    upto[-1] = -(-len(order) // size)
    fill = np.full(upto[-1] * size - len(order), -1, order.dtype)

    def sorted_rows() -> Iterator[np.ndarray]:
        for i in range(len(edges)):
            for block in blocks(len(order)):
                yield order[block][bucket[block] == i]
        yield fill

    kept = examples.store.keep(sorted_rows, upto[-1] * size, order.dtype).reshape(-1, size)
    return Plan(kept, np.repeat(edges, np.diff(upto, prepend=0)), np.arange(upto[-1]))


def gather(examples: Examples, rows: np.ndarray, edge: int, share: slice | None = None) -> Batch:
    """Return one batch; where ``rows`` is -1 its own real rows are repeated with weight 0.

    With a ``share`` only those of its rows are read.
    """
    real = rows[rows >= 0]
    taken = np.where(rows >= 0, rows, np.resize(real, len(rows)))
    if share is not None:
        part = Share(_gathered(examples, rows[share], taken[share], edge))
        part.real = len(real)
        return part
    return _gathered(examples, rows, taken, edge)


def _gathered(examples: Examples, rows: np.ndarray, taken: np.ndarray, edge: int) -> Batch:
    x, lengths = examples.x[taken, :edge], examples.lengths[taken]
    if x.ndim < 4 and x.shape[1] < edge:
        x = np.pad(x, [(0, 0), (0, edge - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])
    batch = {
        "x": x.astype(np.int32 if x.ndim == 2 else np.float32, copy=False),
        "y": examples.y[taken].astype(np.int32, copy=False),
        "weight": (rows >= 0).astype(np.float32),
    }
    if x.ndim == 4:
        return batch
    mask = np.arange(edge) < lengths[:, None]
    return batch | {"mask": mask, "lengths": lengths.astype(np.int32)}


class TrainBatches:
    """Endless training batches; ``batch_at`` is a pure function of the seed and the step.

    Args:
      examples: the training rows.
      batch_size: rows of each batch.
      buckets: padded lengths, from `resnorm_jax.data.buckets.length_buckets`; not used for images.
      seed: of the shuffling.

    Every row occurs once an epoch with weight 1.
    """

    def __init__(
        self, examples: Examples, batch_size: int, buckets: Sequence[int], seed: int
    ) -> None:
        if batch_size < 1 or not len(examples):
            raise ValueError(f"need rows and a batch size, got {len(examples)} and {batch_size}")
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.edges = _edges(examples, buckets)
        self._lock = threading.Lock()
        self._plans: dict[int, Plan] = {}
        self.steps_per_epoch = len(self._plan(0))

    def _make_plan(self, epoch: int) -> Plan:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
        order = shuffled(len(self.examples), rng)
        plan = plan_batches(self.examples, self.edges, self.batch_size, order)
        return replace(plan, order=rng.permutation(len(plan)))

    def _plan(self, epoch: int) -> Plan:
        """Return the epoch's plan; the two latest are kept, for reads ahead of an epoch's end."""
        with self._lock:
            if epoch not in self._plans:
                while len(self._plans) > 1:
                    self._plans.pop(next(iter(self._plans)))
                self._plans[epoch] = self._make_plan(epoch)
            return self._plans[epoch]

    def batch_at(self, step: int, share: slice | None = None) -> Batch:
        """Return the batch of a step (0, 1, ...), or a share of it, whatever was asked for before."""
        epoch, index = divmod(int(step), self.steps_per_epoch)
        return gather(self.examples, *self._plan(epoch).batch(index), share)

    def rows_at(self, step: int) -> np.ndarray:
        """Return which rows a step's batch holds, ``[B]`` from 0, fillers as the rows they repeat."""
        epoch, index = divmod(int(step), self.steps_per_epoch)
        rows, _ = self._plan(epoch).batch(index)
        return np.where(rows >= 0, rows, np.resize(rows[rows >= 0], len(rows)))


def iterate(
    batches: TrainBatches, start_step: int, stop_step: int, share: slice | None = None
) -> Iterator[tuple[int, Batch]]:
    """Yield ``(step, batch)`` for ``start_step <= step < stop_step``, prepared by two threads.

    With a ``share`` only those rows of each batch are read.
    """
    if start_step >= stop_step:
        return
    import grain  # here: it takes a quarter of a second, and only training reads ahead

    steps = grain.MapDataset.range(start_step, stop_step)
    numbered = steps.map(lambda step: {"step": step, "batch": batches.batch_at(step, share)})
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
    for item in numbered.to_iter_dataset(options):
        yield int(item["step"]), item["batch"]


class EvalBatches(Sequence[Batch]):
    """Each row once, in batches of few shapes, made when asked for.

    A batch also has ``rows [B]`` int64: the row's index in the input, -1 for fillers (weight 0). Those
    are of the global batch, also where only a share of it is read.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        buckets: Sequence[int],
        share: slice | None = None,
    ) -> None:
        if batch_size < 1 or not len(examples):
            raise ValueError(f"need rows and a batch size, got {len(examples)} and {batch_size}")
        self.examples, self.share = examples, share
        edges, count = _edges(examples, buckets), len(examples)
        order = examples.store.keep(lambda: indices(count), count, index_type(count))
        needed = edges[: np.searchsorted(edges, examples.lengths.max()) + 1]
        self.plan = plan_batches(examples, needed, batch_size, order)

    def __len__(self) -> int:
        return len(self.plan)

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice) -> "list[Batch]": ...

    def __getitem__(self, index: int | slice) -> "Batch | list[Batch]":
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        rows, edge = self.plan.batch(index)
        batch = gather(self.examples, rows, edge, self.share)
        batch["rows"] = rows.astype(np.int64)
        return batch


def eval_batches(
    examples: Examples, batch_size: int, buckets: Sequence[int], share: slice | None = None
) -> EvalBatches:
    """Return the batches that cover each row once.

    Args:
      examples: rows to score or predict; rows longer than the last bucket get their own.
      batch_size: rows of each batch.
      buckets: padded lengths; not used for images.
      share: rows of each batch that this process reads; None for all.
    """
    return EvalBatches(examples, batch_size, buckets, share)
