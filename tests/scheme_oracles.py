"""Every arrangement in float64 NumPy, sublayer by sublayer, as its paper writes it.

All take complex numbers (no absolute value, no conjugate), for `oracles.gradients`. A scheme is a
function of what it finds in a `Spot`; one that carries more than the stream also opens and closes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from oracles import feed_forward, layer_norm, multi_head_attention, tree_map


@dataclass
class Spot:
    """Where a sublayer stands, its parameters, and its branch."""

    layers: int  # N
    layer: int  # l, from 1
    sublayer: int  # s, from 1, in the whole stack
    position: int  # from 0, in the layer
    p: Mapping[str, Any]  # of the residual block
    shared: Mapping[str, Any]  # of the layer
    stack: Mapping[str, Any]  # of the encoder
    branch: Callable[[np.ndarray], np.ndarray]
    mask: np.ndarray | None = None
    condition: np.ndarray | None = None

    def norm(self, slot, z):
        """The layer norm of a slot, with this block's parameters."""
        return layer_norm(z, **self.p[slot])


@dataclass(frozen=True)
class Scheme:
    """``sublayer(carry, spot) -> carry``; ``close(carry, parameters of the encoder) -> output``.

    ``order`` holds the names of a layer's blocks, or is a function of (layer, layers) to them.
    """

    sublayer: Callable[[Any, Spot], Any]
    open: Callable[..., Any] = lambda x: x
    view: Callable[[Any], np.ndarray] = lambda carry: carry
    close: Callable[[Any, Mapping[str, Any]], np.ndarray] | None = None
    final_norm: bool = False
    order: tuple[str, ...] | Callable[[int, int], tuple[str, ...]] = ("attention", "feed_forward")

    def finish(self, carry, params):
        """The output of the stack."""
        if self.close is not None:
            return self.close(carry, params)
        x = self.view(carry)
        return layer_norm(x, **params["final_norm"]) if self.final_norm else x


def post_ln(x, at):
    """1706.03762, section 3.1: LayerNorm(x + Sublayer(x))."""
    return at.norm("norm_on_stream", x + at.branch(x))


def pre_ln(x, at):
    """2002.04745, table 1."""
    return x + at.branch(at.norm("norm_before", x))


def sandwich_ln(x, at):
    """2105.13290, section 2.4."""
    return x + at.norm("norm_after", at.branch(at.norm("norm_before", x)))


def res_post_norm(x, at):
    """2111.09883, section 3.2."""
    return x + at.norm("norm_after", at.branch(x))


def deepnorm(x, at):
    """2203.00555: LN(alpha x + G(x)), encoder-only alpha."""
    return at.norm("norm_on_stream", (2 * at.layers) ** 0.25 * x + at.branch(x))


SCHEMES: dict[str, Scheme] = {
    "none": Scheme(lambda x, at: at.branch(x)),
    "residual_only": Scheme(lambda x, at: x + at.branch(x)),
    "norm_only": Scheme(lambda x, at: at.norm("norm_on_stream", at.branch(x))),
    "post_ln": Scheme(post_ln),
    "pre_ln": Scheme(pre_ln, final_norm=True),
    "sandwich_ln": Scheme(sandwich_ln, final_norm=True),
    "res_post_norm": Scheme(res_post_norm, final_norm=True),
    "deepnorm": Scheme(deepnorm),
    # 2003.04887, eq. 2: one alpha for both sublayers of a layer
    "rezero": Scheme(lambda x, at: x + at.shared["gate"] * at.branch(x)),
}


def layer_trees(params):
    """The parameters of each layer, from one stack or several."""
    names = sorted(name for name in params if name.startswith("layers"))
    for name in names:
        leaf = params[name]
        while isinstance(leaf, dict):
            leaf = next(iter(leaf.values()))
        for number in range(len(leaf)):
            yield tree_map(lambda a, n=number: a[n], params[name])


def branch_of(name, p, allowed):
    """The branch of a block with these parameters."""
    if name.startswith("feed_forward"):
        return lambda z: feed_forward(p, z)
    return lambda z: multi_head_attention(p, z, allowed)


def encode(name, params, x, mask=None, attention_mask=None):
    """A whole encoder, layer by layer."""
    scheme = SCHEMES[name]
    keys = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask)
    x = np.where(keys[..., None], x, 0)
    condition = x.sum(1) / np.maximum(keys.sum(1, keepdims=True), 1)
    allowed = keys[:, None, None, :]
    if attention_mask is not None:
        allowed = allowed & attention_mask
    if "embedding_norm" in params:
        x = layer_norm(x, **params["embedding_norm"])
    layers = list(layer_trees(params))
    carry, count = scheme.open(x), 0
    for number, shared in enumerate(layers, 1):
        order = scheme.order
        order = order(number, len(layers)) if callable(order) else order
        for position, block in enumerate(order):
            count += 1
            p = shared[block]
            branch = branch_of(block, p["branch"], allowed)
            spot = Spot(
                len(layers), number, count, position, p, shared, params, branch, mask, condition
            )
            carry = scheme.sublayer(carry, spot)
    return scheme.finish(carry, params)


# At the end, as they build upon what is above.
import scheme_oracles_multi  # noqa: E402

SCHEMES |= scheme_oracles_multi.SCHEMES
