"""Schemes of one stream with gates, in float64 NumPy, sublayer by sublayer, from their papers."""

import numpy as np
from oracles import layer_norm
from scheme_oracles import Scheme


def sigmoid(z):
    """The logistic function, of complex numbers too."""
    return 1 / (1 + np.exp(-z))


def silu(z):
    """``z * sigmoid(z)``."""
    return z * sigmoid(z)


def relu(z):
    """``max(z, 0)``, of complex numbers by their real part."""
    return np.where(z.real > 0, z, 0)


def pre(at, x):
    """The branch of the normalized stream."""
    return at.branch(at.norm("norm_before", x))


def pre_ln(step):
    """Pre-LN whose sum is ``step(x, f, parameters, spot)``."""
    return Scheme(lambda x, at: step(x, pre(at, x), at.p, at), final_norm=True)


def variance_preserving(x, at):
    """Beam: the index of the sum counts 2, 3, 4, ..."""
    i = at.sublayer + 1
    f = at.norm("norm_after", pre(at, x))
    return np.sqrt((i - 1) / i) * x + f / np.sqrt(i)


def convex_unit_gate(x, at):
    """Muse Spark: beta = sigmoid(w / T), alpha = sqrt(max(1 - beta^2, 1e-3))."""
    beta = sigmoid(at.p["gate"] / 0.3)
    rest = 1 - beta**2
    alpha = np.sqrt(np.where(rest.real > 1e-3, rest, 1e-3))
    return alpha * x + beta * at.norm("norm_after", pre(at, x))


def affine_residual(x, f, p, at):
    """ZAYA: each side shifted, then multiplied."""
    skip = (x + p["skip_bias"]) * p["skip_scale"]
    return skip + (f + p["branch_bias"]) * p["branch_scale"]


def fixup(x, at):
    """1901.09321: a scalar bias before the branch, a scalar multiplier after it."""
    return x + at.p["scale"] * at.branch(x + at.p["shift"])


def highway(x, f, p, at):
    """1505.00387: y = H(x) T(x) + x (1 - T(x))."""
    t = sigmoid(x @ p["kernel"] + p["bias"])
    return f * t + x * (1 - t)


def gtrxl(x, at):
    """1910.06764: the GRU gate, y = ReLU of the branch."""
    y, d = relu(pre(at, x)), x.shape[-1]
    w_r, w_z, w_g = (at.p["branch_kernel"][:, n * d : (n + 1) * d] for n in range(3))
    u_r, u_z = at.p["skip_kernel"][:, :d], at.p["skip_kernel"][:, d:]
    r = sigmoid(y @ w_r + x @ u_r)
    z = sigmoid(y @ w_z + x @ u_z - at.p["bias"])
    h = np.tanh(y @ w_g + (r * x) @ at.p["candidate_kernel"])
    return (1 - z) * x + z * h


def gtrxl_input(x, at):
    """1910.06764: the input gate."""
    return sigmoid(x @ at.p["kernel"]) * x + relu(pre(at, x))


def gtrxl_output(x, at):
    """1910.06764: the output gate."""
    return x + sigmoid(x @ at.p["kernel"] - at.p["bias"]) * relu(pre(at, x))


def gtrxl_sig_tanh(x, at):
    """1910.06764: the sigmoid-tanh gate."""
    y, d = relu(pre(at, x)), x.shape[-1]
    w, u = at.p["kernel"][:, :d], at.p["kernel"][:, d:]
    return x + sigmoid(y @ w - at.p["bias"]) * np.tanh(y @ u)


def orthogonal_update(x, f, p, at):
    """2505.11881: only the part of f that is orthogonal to x; epsilon of the authors' code."""
    return x + f - (x * f).sum(-1, keepdims=True) / ((x * x).sum(-1, keepdims=True) + 1e-6) * x


def token_mean(x, mask):
    """Mean over valid tokens, ``[B, 1, D]``."""
    if mask is None:
        return x.mean(1, keepdims=True)
    return np.stack([row[valid].mean(0, keepdims=True) for row, valid in zip(x, mask, strict=True)])


def mv_split(x, at):
    """2605.06169: R + beta (T - M(T)) + alpha (M(T) - M(R)), then the norm."""
    f = at.branch(x)
    of_f, of_x = token_mean(f, at.mask), token_mean(x, at.mask)
    z = x + at.p["scale"] * (f - of_f) + at.p["alpha"] * (of_f - of_x)
    return at.norm("norm_on_stream", z)


def deep_delta(x, at):
    """2601.00417 with scalar values: x + beta k (v - k^T x)."""
    p, read = at.p, at.norm("read_norm", x)
    f = at.branch(read)
    k = f / np.sqrt((f * f).sum(-1, keepdims=True) + 1e-10)
    beta = 2 * sigmoid(read @ p["gate_kernel"] + p["gate_bias"])
    v = 4 * sigmoid(x @ p["value_kernel"] + p["value_bias"])
    return x + beta * k * (v - (k * x).sum(-1, keepdims=True))


def gpas(x, at):
    """2506.22049: the stopped gradient is a real number to the complex step."""
    z = x + pre(at, x)
    return z - silu(at.shared["gate"]) * z.real


def adaln_zero(x, at):
    """2212.09748: (shift, scale, gate) = Linear(SiLU(c)) around a norm without parameters."""
    c = np.zeros((len(x), len(at.p["modulation_kernel"])))
    c = c if at.condition is None else at.condition
    out = (silu(c) @ at.p["modulation_kernel"] + at.p["modulation_bias"])[:, None]
    shift, scale, gate = np.split(out, 3, -1)
    return x + gate * at.branch(layer_norm(x) * (1 + scale) + shift)


SCHEMES = {
    "variance_preserving": Scheme(variance_preserving, final_norm=True),
    "depth_scaled": pre_ln(lambda x, f, p, at: x + 1.4 / np.sqrt(at.layers) * f),
    "convex_unit_gate": Scheme(convex_unit_gate, final_norm=True),
    "affine_residual": pre_ln(affine_residual),
    "residual_scale": pre_ln(lambda x, f, p, at: p["scale"] * x + f),
    "layer_scale": pre_ln(lambda x, f, p, at: x + p["gate"] * f),
    "skip_init": Scheme(lambda x, at: x + at.p["gate"] * at.branch(x)),
    "fixup": Scheme(fixup),
    "highway": pre_ln(highway),
    "gtrxl": Scheme(gtrxl),
    "gtrxl_input": Scheme(gtrxl_input),
    "gtrxl_output": Scheme(gtrxl_output),
    "gtrxl_sig_tanh": Scheme(gtrxl_sig_tanh),
    "tanh_zero_gate": pre_ln(lambda x, f, p, at: x + np.tanh(p["gate"]) * f),
    "laurel_rw": pre_ln(lambda x, f, p, at: p["skip_scale"] * x + p["branch_scale"] * f),
    "laurel_lr": pre_ln(lambda x, f, p, at: x + f + x @ p["down_kernel"] @ p["up_kernel"]),
    "orthogonal_update": pre_ln(orthogonal_update),
    "mv_split": Scheme(mv_split),
    "deep_delta": Scheme(deep_delta, final_norm=True),
    "gpas": Scheme(gpas, final_norm=True),
    "adaln_zero": Scheme(adaln_zero, close=lambda x, params: layer_norm(x)),
}
