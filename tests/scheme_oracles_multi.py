"""Arrangements of several streams in float64 NumPy, as their papers and their authors' code write them.

Take complex numbers, as `scheme_oracles`, which gives `spot` and `Scheme`; loops over streams rather
than matrix products, so that no transposition is shared with the package.
"""

from itertools import permutations
from math import sqrt

import numpy as np
from oracles import layer_norm, rms_norm
from scheme_oracles import Scheme

N = 4
EPSILON = 1e-6


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def copies(x):
    """2409.19606, section 2.1: the input, n times."""
    return [x] * N


def sum_of(streams):
    return sum(streams)


# --- Hyper-connections, 2409.19606 ---


def static_weights(streams, at):
    """Eq. 1: read [n, r], mix [n, n] and write [n], the same at every position."""
    return at.p["read_gate"], at.p["mix_gate"], at.p["write_gate"]


def dynamic_weights(norm):
    """Eq. 10-13: row j of the weights moves with stream j alone."""

    def weights(streams, at):
        read, mix, write = static_weights(streams, at)
        w, (for_width, for_depth) = at.p["kernel"], at.p["alpha"]
        r = read.shape[1]
        tilts = [np.tanh(norm(h) @ w) for h in streams]
        # The last axis holds one entry for each position's row j.
        row = [
            for_width * t[..., :-1] + np.concatenate([read[j], mix[j]]) for j, t in enumerate(tilts)
        ]
        reads = [[row[j][..., i, None] for i in range(r)] for j in range(N)]
        mixes = [[row[j][..., r + i, None] for i in range(N)] for j in range(N)]
        writes = [for_depth * t[..., -1:] + write[j] for j, t in enumerate(tilts)]
        return reads, mixes, writes

    return weights


def mixed_with(streams, matrix, count):
    """Algorithm 2's ``alpha.transpose(-1, -2) @ h``, entry by entry."""
    return [sum(matrix[j][i] * streams[j] for j in range(len(streams))) for i in range(count)]


def hyper(weights):
    """Algorithm 3: width connections, the branch after its norm, depth connections."""

    def sublayer(streams, at):
        read, mix, write = weights(streams, at)
        (h,) = mixed_with(streams, read, 1)
        y = at.branch(at.norm("norm_before", h))
        return [write[i] * y + m for i, m in enumerate(mixed_with(streams, mix, N))]

    return Scheme(sublayer, copies, sum_of, final_norm=True)


def cut(x):
    return np.split(x, N, -1)


def join(parts):
    return np.concatenate(parts, -1)


def frac(weights):
    """2503.14125, algorithm 1."""

    def sublayer(parts, at):
        read, mix, write = weights(parts, at)
        y = cut(at.branch(at.norm("norm_before", join(mixed_with(parts, read, N)))))
        return [write[i] * y[i] + m for i, m in enumerate(mixed_with(parts, mix, N))]

    return Scheme(sublayer, cut, join, final_norm=True)


# --- Manifold-constrained, 2512.24880 ---


def sinkhorn(logits, steps=20, epsilon=EPSILON):
    """Eq. 9, in the order of DeepSeek's code: rows by softmax, columns, then 19 times both."""
    m = softmax(logits) + epsilon
    m = m / (m.sum(-2, keepdims=True) + epsilon)
    for _ in range(steps - 1):
        m = m / (m.sum(-1, keepdims=True) + epsilon)
        m = m / (m.sum(-2, keepdims=True) + epsilon)
    return m


def permutation(order):
    matrix = np.zeros((N, N))
    for j, i in enumerate(order):
        matrix[j, i] = 1
    return matrix


PERMUTATIONS = np.stack([permutation(order) for order in permutations(range(N))])


def birkhoff(logits):
    """2601.05732: the permutation matrices under a softmax."""
    return np.tensordot(softmax(logits), PERMUTATIONS, 1)


def tilde(streams, p):
    """Eq. 7, all three at once: vec(H), RMS norm, projection, alpha and b."""
    z = rms_norm(np.concatenate(streams, -1), epsilon=EPSILON) @ p["kernel"]
    widths = (N, N, z.shape[-1] - 2 * N)[: len(p["alpha"])]
    scale = np.concatenate([np.full(w, a) for w, a in zip(widths, p["alpha"], strict=True)])
    return scale * z + p["bias"]


def manifold(project, floor_before=0.0, floor_after=0.0, **ends):
    """Eq. 8 and the residual merge, R transposed as in the code: row sums are of what is given."""

    def sublayer(streams, at):
        z = tilde(streams, at.p)
        before = sigmoid(z[..., :N]) + floor_before
        after = 2 * sigmoid(z[..., N : 2 * N]) + floor_after
        h = sum(before[..., j, None] * streams[j] for j in range(N))
        y = at.branch(at.norm("norm_before", h))
        kept = streams
        if project is not None:
            r = project(z[..., 2 * N :])
            rows = np.stack(streams, -2)
            kept = [(r[..., :, i, None] * rows).sum(-2) for i in range(N)]  # over j, of r[j, i]
        return [kept[i] + after[..., i, None] * y for i in range(N)]

    return Scheme(sublayer, **{"open": copies, "view": sum_of, "final_norm": True} | ends)


def as_square(z):
    return sinkhorn(z.reshape(*z.shape[:-1], N, N))


def head(streams, p):
    """HYV4HyperHead, then the norm."""
    z = rms_norm(np.concatenate(streams, -1), epsilon=EPSILON) @ p["head_kernel"]
    before = sigmoid(p["head_alpha"] * z + p["head_bias"]) + EPSILON
    return layer_norm(sum(before[..., j, None] * streams[j] for j in range(N)), **p["final_norm"])


# --- Two arrays ---


def resi_dual(carry, at):
    """ResiDualEncoderLayer.forward."""
    x, r = carry
    f = at.branch(x)
    return at.norm("norm_on_stream", x + f), r + f


def siamese(carry, at):
    """Block.forward of the DeiT file: post-norm of x, pre-norm of y, input norm of their sum."""
    x, y = carry
    x = at.norm("post_norm", x)
    z = at.branch(at.norm("norm_before", x + at.norm("pre_norm", y)))
    return x + z / sqrt(2 * at.layer), y + z


def siamese_end(carry, p):
    x, y = carry
    both = layer_norm(x, **p["post_norm"]) + layer_norm(y, **p["pre_norm"])
    return layer_norm(both, **p["final_norm"])


def bottom_to_top(carry, at):
    """TransformerEncoderLayer.forward with residual_bottom_to_top, after normalization."""
    x, bottom = carry
    if at.position == 0:
        return at.norm("norm_on_stream", x + at.branch(x)), x
    return at.norm("norm_on_stream", x + at.branch(x) + bottom), bottom


def input_lambdas(carry, at):
    """GPT.forward: the mixture before each block, both of whose sublayers are Pre-LN."""
    x, x0 = carry
    if at.position == 0:
        x = at.shared["resid_gate"] * x + at.shared["input_gate"] * x0
    return x + at.branch(at.norm("norm_before", x)), x0


TWICE = {"open": lambda x: (x, x), "view": lambda carry: carry[0]}

SCHEMES = {
    "hyper_connections": hyper(static_weights),
    "dynamic_hyper_connections": hyper(dynamic_weights(layer_norm)),
    "frac_connections": frac(static_weights),
    "dynamic_frac_connections": frac(dynamic_weights(rms_norm)),
    "mhc": manifold(as_square, EPSILON),
    "mhc_lite": manifold(birkhoff),
    "unmixed_hyper_connections": manifold(
        None, EPSILON, EPSILON, close=head, view=lambda streams: sum(streams) / N
    ),
    "resi_dual": Scheme(
        resi_dual, close=lambda c, p: c[0] + layer_norm(c[1], **p["final_norm"]), **TWICE
    ),
    "siamese_norm": Scheme(siamese, close=siamese_end, **TWICE),
    "bottom_to_top": Scheme(bottom_to_top, **TWICE),
    "input_lambdas": Scheme(input_lambdas, final_norm=True, **TWICE),
}
