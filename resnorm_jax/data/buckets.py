"""Padded lengths of batches: few, since each is a program to compile, and with little padding."""

import numpy as np

from resnorm_jax.data.row_arrays import distinct

ROUND = 4  # edges but the last are multiples of it
MOST_CANDIDATES = 1024  # edges are multiples of more than 4 where there would be more of them


def length_buckets(
    lengths: np.ndarray, count: int, batch_size: int = 1, program: float = 0.0
) -> tuple[int, ...]:
    """Choose the padded lengths with which an epoch has the fewest positions.

    The minimum of ``positions + program * edges`` over all choices of at most ``count`` edges, with
    the batches that `resnorm_jax.data.pipeline.plan_batches` makes: rows that a bucket leaves over
    go to the next. Exact, by dynamic programming over the lengths; of equal choices the one of fewest
    edges.

    Args:
      lengths: ``[N]`` of the training rows.
      count: most edges, at least 1.
      batch_size: rows of a batch.
      program: positions that an edge must save to be worth its program.

    Returns:
      Ascending edges. The last is the longest row's length; the others are multiples of 4, or, for
      rows of over 4,096 positions, of a larger multiple of 4.
    """
    if count < 1 or not len(lengths):
        raise ValueError(f"need count >= 1 and rows, got {count} and {len(lengths)}")
    known = distinct(np.asarray(lengths))
    edges = _candidates(known[0])
    batches = _batches_up_to(known, edges, batch_size)
    # cost[j]: least positions, over batch_size, of the batches up to edge j, if it is one.
    cost, before = (batches * edges).astype(float), []
    last = [cost[-1]]
    between = (batches[:, None] - batches) * edges[:, None].astype(float)  # edge j next after i
    between[np.triu_indices(len(edges))] = np.inf
    for _ in range(min(count, len(edges)) - 1):
        total = cost + between
        before.append(total.argmin(axis=1))
        cost = total.min(axis=1)
        last.append(cost[-1])
    worth = batch_size * np.array(last) + program * np.arange(1, len(last) + 1)
    chosen = [len(edges) - 1]
    for step in reversed(before[: int(worth.argmin())]):
        chosen.append(int(step[chosen[-1]]))
    return tuple(int(edges[i]) for i in reversed(chosen))


def _candidates(lengths: np.ndarray) -> np.ndarray:
    """Return the edges to choose from, ascending, the longest row's length last."""
    longest = int(np.max(lengths))
    size = ROUND * -(-longest // (ROUND * MOST_CANDIDATES))
    return np.unique(np.minimum(-(-np.asarray(lengths, np.int64) // size) * size, longest))


def _batches_up_to(
    known: tuple[np.ndarray, np.ndarray], edges: np.ndarray, size: int
) -> np.ndarray:
    """Return how many batches of an epoch the rows up to each edge make; the last is filled.

    ``known`` are the different lengths, ascending, and how many rows have each.
    """
    lengths, often = known
    rows = np.append(0, np.cumsum(often))[np.searchsorted(lengths, edges, side="right")]
    return np.append(rows[:-1] // size, -(-rows[-1] // size))


def epoch_positions(lengths: np.ndarray, edges: np.ndarray, batch_size: int) -> int:
    """Return the positions of an epoch's batches, padding and rows that only fill included."""
    known = distinct(np.asarray(lengths))
    batches = _batches_up_to(known, np.asarray(edges, np.int64), batch_size)
    return int((np.diff(batches, prepend=0) * edges).sum()) * batch_size


def quantile_buckets(lengths: np.ndarray, count: int) -> tuple[int, ...]:
    """Return the padded lengths of runs before version 0.3: equally spaced quantiles."""
    quantiles = np.quantile(lengths, np.arange(1, count + 1) / count, method="higher")
    rounded = np.minimum(-(-quantiles.astype(int) // ROUND) * ROUND, np.max(lengths))
    return tuple(int(edge) for edge in np.unique(rounded))
