"""Closed-form constants as functions of depth. Standard library only.

A depth rule takes a `Place` and returns a float. Rules are plain functions, so that a row of the
catalog reads like the table of its paper.
"""

import math
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


def half(place: Place) -> float:
    """1/2 at every depth."""
    return 0.5


def inverse_root_of_layer(place: Place) -> float:
    """``1 / sqrt(l)``, l the layer (not the sublayer)."""
    return place.layer**-0.5


def count_of_sublayers(place: Place) -> float:
    """The sublayers of the whole stack, 2 N as a rule."""
    return float(place.sublayers)


def magneto_gain(place: Place) -> float:
    """Sub-LN's init gain (arXiv 2210.06423; architecture/encoder.py and decoder.py of torchscale).

    ``sqrt(log(2 N))`` for a stack alone; beside a decoder of M layers the encoder has
    ``sqrt(log(3 M) log(2 N) / 3)``, and that decoder ``sqrt(log(3 M))``.
    """
    if not place.other:
        return math.log(2 * place.layers) ** 0.5
    if place.stack == "decoder":
        return math.log(3 * place.layers) ** 0.5
    return (math.log(3 * place.other) * math.log(2 * place.layers) / 3) ** 0.5


def t_fixup_gain(place: Place) -> float:
    """T-Fixup's init gain: ``0.67 N**(-1/4)`` in an encoder, ``(9 M)**(-1/4)`` in a decoder.

    Source: Huang et al. 2020 (ICML); fixup_initialization of layer6ai-labs/T-Fixup.
    """
    if place.stack == "decoder":
        return (9 * place.layers) ** -0.25
    return 0.67 * place.layers**-0.25


def t_fixup_embedding(place: Place) -> float:
    """T-Fixup's gain of token embeddings, ``(9 N)**(-1/4)``; same source as `t_fixup_gain`."""
    return (9 * place.layers) ** -0.25


def shaped_branch(place: Place) -> float:
    """``0.1 sqrt(18 / N)``: O(1 / sqrt(N)) as arXiv 2311.01906 asks, and 0.1 at N = 18 as its code."""
    return 0.1 * (18 / place.layers) ** 0.5


def sandwich_sublayers(place: Place) -> tuple[str, str]:
    """The kinds of a layer's two sublayers in ``s^k (s f)^(N - k) f^k``, k the whole number near 5N/24.

    s is attention, f feed-forward. Cut into pairs from the start, so that N layers still have 2 N
    sublayers. The coefficient is that of 24 layers in experiments/enwik8_large.sh of
    ofirpress/sandwich_transformer (its text8 run has 3 of 24).
    """
    layers = place.layers
    k = round(5 * layers / 24)
    whole = "s" * k + "sf" * (layers - k) + "f" * k
    kinds = {"s": "attention", "f": "feed_forward"}
    first, second = (kinds[letter] for letter in whole[2 * place.layer - 2 : 2 * place.layer])
    return first, second
