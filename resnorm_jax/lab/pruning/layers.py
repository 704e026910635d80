"""Which layers to remove: plans, made from the log loss on rows that are not the test rows."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

# From the set of removed layers to the log loss on the rows that layers are chosen on.
Loss = Callable[[frozenset[int]], float]


def greedy(loss: Loss, depth: int) -> list[int]:
    """Return all layers in the order of removal: each time the one whose loss costs least.

    ``r_k = argmin_l loss({r_1, ..., r_(k-1), l})``, the earliest on a tie; ``N (N + 1) / 2`` losses.
    """
    gone: list[int] = []
    for _ in range(depth):
        left = [layer for layer in range(depth) if layer not in gone]
        gone.append(min(left, key=lambda layer: _sortable(loss(frozenset([*gone, layer])))))
    return gone


def alone(loss: Loss, depth: int) -> list[int]:
    """Return all layers by the loss without that one alone, least first; N losses."""
    return sorted(range(depth), key=lambda layer: _sortable(loss(frozenset([layer]))))


def _sortable(loss: float) -> float:
    return loss if np.isfinite(loss) else np.inf


@dataclass(frozen=True)
class Order:
    """A row: how layers are chosen, and how many losses that takes."""

    name: str
    about: str
    choose: Callable[[Loss, int], list[int]]
    losses: Callable[[int], int]


ORDERS = (
    Order(
        "greedy",
        "each time the layer whose removal raises the log loss least",
        greedy,
        lambda depth: depth * (depth + 1) // 2,
    ),
    Order(
        "alone",
        "layers by the log loss without that layer alone",
        alone,
        lambda depth: depth,
    ),
)


def kept_counts(shares: list[float], depth: int) -> list[int]:
    """Return the numbers of layers kept, ``round(share * depth)`` (halves up), each once."""
    return list(dict.fromkeys(int(np.floor(share * depth + 0.5)) for share in shares))


def size_of(gone: Iterable[int], sizes: Sequence[int], depth: int) -> int:
    """Return how many parameters are not needed without some layers, counted from 0.

    Args:
      gone: the layers.
      sizes: of `layer_sizes`.
      depth: layers; where they are more than the sizes, as many in a row share each set.
    """
    gone, shared = set(gone), depth // len(sizes)
    return sum(
        size for n, size in enumerate(sizes) if gone.issuperset(range(n * shared, (n + 1) * shared))
    )


def layer_sizes(params: Any) -> list[int]:
    """Return the parameters of each layer that has its own: those stacked under ``layers``."""
    stacks: dict[str, list[Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [str(getattr(entry, "key", entry)) for entry in path]
        own = next((name for name in names if name.startswith("layers")), None)
        if own is not None:
            stacks.setdefault(own, []).append(leaf)
    ordered = sorted(stacks, key=lambda name: int(name.rpartition("_")[2]) if "_" in name else 0)
    return [
        sum(int(np.prod(leaf.shape[1:])) for leaf in stacks[name])
        for name in ordered
        for _ in range(stacks[name][0].shape[0])
    ]
