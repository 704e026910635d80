"""Schemes that look back at earlier layers, in float64 NumPy: plain lists of all that was written."""

import numpy as np
from oracles import layer_norm, rms_norm
from scheme_oracles import Scheme, pre_ln


def depth_softmax(sources, query):
    """2603.15031, eq. 2-4: weights exp(w . RMS(v)), normalized over the sources."""
    logits = np.stack([(rms_norm(v) * query).sum(-1) for v in sources])
    weights = np.exp(logits - logits.real.max(0))
    return ((weights / weights.sum(0))[..., None] * np.stack(sources)).sum(0)


def denseformer(carry, at):
    """2402.02622, section 3: x_l = block(y_(l-1)), y_l = sum_(j <= l) a_lj x_j, x_0 the embedding."""
    x, past = carry
    x = pre_ln(x, at)
    if at.position == 0:
        return x, past
    past = [*past, x]
    weights = at.stack["depth_alpha"][at.layer - 1]
    return sum(a * v for a, v in zip(weights, past, strict=False)), past


def attention_residuals(carry, at):
    """2603.15031, eq. 4; its layer is our sublayer. The next input is made at once."""
    h, values = carry
    values = [*values, at.branch(at.norm("norm_before", h))]
    return depth_softmax(values, at.stack["query_kernel"][at.sublayer]), values


def block_attention_residuals(carry, at):
    """2603.15031, figure 2, 8 blocks of ceil(N / 8) layers: b_0 is the embedding."""
    h, blocks = carry
    if at.position == 0 and (at.layer - 1) % -(-at.layers // 8) == 0:
        blocks = [*blocks, 0]
    blocks = [*blocks[:-1], blocks[-1] + at.branch(at.norm("norm_before", h))]
    return depth_softmax(blocks, at.stack["query_kernel"][at.sublayer]), blocks


def looking_back(sublayer):
    """A Pre-LN scheme that carries its input and a list."""
    return Scheme(
        sublayer,
        open=lambda x: (x, [x]),
        view=lambda carry: carry[0],
        close=lambda carry, p: layer_norm(carry[0], **p["final_norm"]),
    )


SCHEMES = {
    "denseformer": looking_back(denseformer),
    "attention_residuals": looking_back(attention_residuals),
    "block_attention_residuals": looking_back(block_attention_residuals),
    # 2410.17897, ResFormer: the first layer's values, and half and half in all others.
    "value_residual": Scheme(pre_ln, final_norm=True, values=lambda v, first: (v + first) / 2),
    # 2603.05369 when the warm-up is over.
    "prores": Scheme(pre_ln, final_norm=True),
}
