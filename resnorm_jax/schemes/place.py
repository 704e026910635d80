"""Where a sublayer stands, and what may depend on it. Standard library only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Place:
    """Where a sublayer stands. Layers and sublayers are counted from 1.

    Attributes:
      layers: N, layers of the stack (a layer is attention and feed-forward).
      layer: l, the layer.
      sublayer: s, the sublayer among those of the whole stack.
      sublayers: sublayers of the whole stack, usually 2 N.
      stack: which stack of an encoder-decoder this is; ``"encoder"`` also for a stack that stands
        alone.
      other: layers of the other stack of an encoder-decoder; 0 for a stack that stands alone.
    """

    layers: int = 1
    layer: int = 1
    sublayer: int = 1
    sublayers: int = 2
    stack: Literal["encoder", "decoder"] = "encoder"
    other: int = 0


# A depth rule takes a place and returns a number. Rules are plain functions, so that a row reads
# like the table of its paper.
DepthRule = Callable[[Place], float]


def one(place: Place) -> float:
    """1 at every depth."""
    return 1.0


def zero(place: Place) -> float:
    """0 at every depth."""
    return 0.0


def half(place: Place) -> float:
    """1/2 at every depth."""
    return 0.5
