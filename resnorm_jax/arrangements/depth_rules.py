"""Closed-form constants as functions of depth. Standard library only.

A depth rule takes a `Place` and returns a float. Rules are plain functions, so that a row of the
catalog reads like the table of its paper.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a sublayer stands.

    Attributes:
      layers: N, layers of the stack (a layer is attention and feed-forward).
      layer: l, 1-based index of the layer.
      sublayer: s, 1-based index over the sublayers of the whole stack.
      sublayers: sublayers of the whole stack, usually 2 N.
    """

    layers: int = 1
    layer: int = 1
    sublayer: int = 1
    sublayers: int = 2


DepthRule = Callable[[Place], float]


def one(place: Place) -> float:
    """1 at every depth."""
    return 1.0


def zero(place: Place) -> float:
    """0 at every depth."""
    return 0.0


def deepnorm_alpha(place: Place) -> float:
    """``(2 N)**(1/4)``: skip scale of an encoder-only or decoder-only DeepNorm stack."""
    return (2 * place.layers) ** 0.25


def deepnorm_beta(place: Place) -> float:
    """``(8 N)**(-1/4)``: init gain of an encoder-only or decoder-only DeepNorm stack."""
    return (8 * place.layers) ** -0.25
