"""Closed-form constants as functions of depth. Standard library only.

A depth rule takes a `Place` and returns a float. Rules are plain functions, so that a row of the
catalog reads like the table of its paper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Place:
    """Where a sublayer stands.

    Attributes:
      layers: N, layers of the stack (a layer is attention and feed-forward).
      layer: l, 1-based index of the layer.
      sublayer: s, 1-based index over the sublayers of the whole stack.
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


DepthRule = Callable[[Place], float]


def one(place: Place) -> float:
    """1 at every depth."""
    return 1.0


def zero(place: Place) -> float:
    """0 at every depth."""
    return 0.0


def deepnorm_alpha(place: Place) -> float:
    """DeepNorm's skip scale (arXiv 2203.00555, figure 2).

    ``(2 N)**(1/4)`` for a stack alone; beside a decoder of M layers the encoder has
    ``0.81 (N**4 M)**(1/16)``, and that decoder ``(3 M)**(1/4)``.
    """
    if not place.other:
        return (2 * place.layers) ** 0.25
    if place.stack == "decoder":
        return (3 * place.layers) ** 0.25
    return 0.81 * (place.layers**4 * place.other) ** 0.0625


def deepnorm_beta(place: Place) -> float:
    """DeepNorm's init gain (arXiv 2203.00555, figure 2).

    ``(8 N)**(-1/4)`` for a stack alone; beside a decoder of M layers the encoder has
    ``0.87 (N**4 M)**(-1/16)``, and that decoder ``(12 M)**(-1/4)``.
    """
    if not place.other:
        return (8 * place.layers) ** -0.25
    if place.stack == "decoder":
        return (12 * place.layers) ** -0.25
    return 0.87 * (place.layers**4 * place.other) ** -0.0625
