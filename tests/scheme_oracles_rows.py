"""Schemes of resnorm_jax/schemes/inside.py, by_depth.py and orders.py, each as its paper writes it.

What stands inside the branches (norms of heads, of queries and keys, nGPT's factors) is in
`oracles.multi_head_attention` and `oracles.feed_forward`, by the parameters that are there.
"""

import numpy as np
from oracles import l2_norm
from scheme_oracles import Scheme, post_ln, pre_ln, res_post_norm, sandwich_ln


def normformer(x, at):
    """2110.09456: Pre-LN, and a norm after attention alone."""
    return sandwich_ln(x, at) if at.block == "attention" else pre_ln(x, at)


def mix_ln(x, at):
    """2412.13795: the first quarter of the layers, rounded down, is Post-LN."""
    first = at.block and at.layer <= int(np.floor(0.25 * at.layers))
    return post_ln(x, at) if first else pre_ln(x, at)


def layer_norm_scaling(x, at):
    """2502.05795: the normed input over the root of the layer's index."""
    return x + at.branch(at.norm("norm_before", x) / np.sqrt(at.layer))


def hybrid_norm(x, at):
    """2503.04598: y = norm(x + attention(x)); y + FFN(y)."""
    return post_ln(x, at) if at.block == "attention" else x + at.branch(x)


def hybrid_norm_star(x, at):
    """Its first layer is Pre-LN."""
    return pre_ln(x, at) if at.layer == 1 else hybrid_norm(x, at)


def ngpt(h, at):
    """2410.01131, eq. 10-11 as NVIDIA/ngpt stores alpha: 0.05 sqrt(D) times the parameter."""
    step = np.sqrt(at.p["gate"] ** 2) * 0.05 * np.sqrt(h.shape[-1])
    return l2_norm(h + step * (l2_norm(at.branch(h)) - h))


def keel(x, at):
    """2601.19895: LN(a x + f(LN(x))), a the number of sublayers, two a layer here."""
    return at.norm("norm_on_stream", 2 * at.layers * x + at.branch(at.norm("norm_before", x)))


def shaped_attention(x, at):
    """2311.01906: no skip around attention; the feed-forward branch shrinks with depth."""
    y = at.branch(at.norm("norm_before", x))
    if at.block == "attention":
        return y
    return x + y * (0.1 * np.sqrt(18 / at.layers) if at.block else 1)


def macaron(x, at):
    """2005.08100, eq. 1: half steps around attention, a norm at the end."""
    y = at.branch(at.norm("norm_before", x))
    x = x + (0.5 * y if at.block.startswith("feed_forward") else y)
    return at.norm("norm_on_stream", x) if at.block == "feed_forward_1" else x


def parallel_one_norm(x, at):
    """GPT-J: both branches read one norm; `at.branch` is their sum."""
    return pre_ln(x, at)


def parallel_two_norms(x, at):
    """GPT-NeoX: each branch has its norm."""
    return x + at.branch(x)


def sandwich_order(layer, layers):
    """1911.03864: s^k (sf)^(N-k) f^k, two sublayers a layer."""
    k = int(np.rint(5 * layers / 24))
    kinds = ["attention"] * k + ["attention", "feed_forward"] * (layers - k) + ["feed_forward"] * k
    first, second = kinds[2 * layer - 2], kinds[2 * layer - 1]
    return (first, second + "_1" if second == first else second)


def admin(x, at):
    """2004.08249: LN(w x + f(x))."""
    return at.norm("norm_on_stream", at.p["skip_scale"] * x + at.branch(x))


SCHEMES = {
    "normformer": Scheme(normformer, final_norm=True),
    "sub_ln": Scheme(pre_ln, final_norm=True),
    "reordered_ln": Scheme(res_post_norm, final_norm=True),
    "res_post_norm_cosine": Scheme(res_post_norm, final_norm=True),
    "t_fixup": Scheme(lambda x, at: x + at.branch(x)),
    "ds_init": Scheme(post_ln),
    "mix_ln": Scheme(mix_ln, final_norm=True),
    "layer_norm_scaling": Scheme(layer_norm_scaling, final_norm=True),
    "hybrid_norm": Scheme(hybrid_norm, final_norm=True),
    "hybrid_norm_star": Scheme(hybrid_norm_star, final_norm=True),
    "parallel_one_norm": Scheme(parallel_one_norm, final_norm=True, order=("parallel",)),
    "parallel_two_norms": Scheme(parallel_two_norms, final_norm=True, order=("parallel",)),
    "ngpt": Scheme(ngpt, embed=l2_norm),
    "keel": Scheme(keel),
    "shaped_attention": Scheme(shaped_attention, final_norm=True),
    "embedding_norm_pre_ln": Scheme(pre_ln, final_norm=True),
    "macaron": Scheme(macaron, order=("feed_forward", "attention", "feed_forward_1")),
    "sandwich_order": Scheme(pre_ln, final_norm=True, order=sandwich_order),
    "admin": Scheme(admin),
}
