"""Every norm of the table in float64 NumPy, from the papers' equations and the official formulas.

A row is written as its source writes it, not as the package computes it. All take complex numbers
(no conjugate, no built-in absolute value), so that `oracles.gradients` differentiates them by the
complex step; ``.real`` is then exactly a stopped gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import oracles
from scipy.special import erf


@dataclass(frozen=True)
class Parameter:
    """Value of every element at first, as a function of the width, and whether it is a vector."""

    first: Callable[[int], float]
    vector: bool = True

    def shape(self, width):
        return (width,) if self.vector else ()


@dataclass(frozen=True)
class Oracle:
    """``forward(x, **parameters)``, with ``epsilon`` too if the equation has one."""

    forward: Callable[..., np.ndarray]
    parameters: dict[str, Parameter]
    epsilon: float | None = 1e-6

    def __call__(self, x, parameters, epsilon=None):
        options = {} if self.epsilon is None else {"epsilon": epsilon or self.epsilon}
        return self.forward(x, **parameters, **options)

    def vjp(self, x, parameters, weights, epsilon=None):
        """Cotangents of x and of the parameters, by name, for the cotangent ``weights``."""

        def loss(tree):
            rest = {key: value for key, value in tree.items() if key != "x"}
            return (self(tree["x"], rest, epsilon) * weights).sum()

        return oracles.gradients(loss, {"x": x, **parameters})


# --- Pieces. The last axis holds the features. ---


def mean(x):
    return x.sum(-1, keepdims=True) / x.shape[-1]


def size(x):
    """|x| by the real part, which is analytic away from 0."""
    return x * np.sign(x.real)


def clip(x, low, high):
    return np.where(x.real < low, low, np.where(x.real > high, high, x))


def length(x):
    return np.sqrt((x * x).sum(-1, keepdims=True))


def unbiased_std(x):
    """Divides by D - 1; of a single element 0, where it is not defined."""
    return length(x - mean(x)) / np.sqrt(max(1, x.shape[-1] - 1))


# --- Norms with a mean ---


def layer(x, scale=1.0, bias=0.0, *, epsilon):
    """1607.06450, eq. 3-4: biased variance; epsilon inside the root."""
    variance = mean((x - mean(x)) ** 2)
    return scale * (x - mean(x)) / np.sqrt(variance + epsilon) + bias


def layer_zero_centred(x, scale, bias, *, epsilon):
    """LayerNorm1P: the weight is stored less 1."""
    return layer(x, scale + 1, bias, epsilon=epsilon)


def layer_std(x, scale=1.0, bias=0.0, *, epsilon):
    """``a_2 * (x - mean) / (std + eps) + b_2`` of tutorials, torch.std."""
    return scale * (x - mean(x)) / (unbiased_std(x) + epsilon) + bias


def ada(x, *, epsilon):
    """1911.07013, eq. 8 with C = 1, k = 1/10; in the code phi is detached, C is a constant."""
    z = layer_std(x, epsilon=epsilon)
    phi = 1 - z.real / 10
    return phi * z


def detach(x, *, epsilon):
    """1911.07013, section 4.2: mean and deviation are constants to the gradient."""
    return (x - mean(x).real) / (unbiased_std(x).real + epsilon)


# --- Norms with a length ---


def rms(x, scale=1.0, *, epsilon):
    """1910.07467, eq. 4, epsilon as in T5 and Llama."""
    return scale * x / np.sqrt(mean(x * x) + epsilon)


def rms_zero_centred(x, scale, *, epsilon):
    """Gemma: ``output * (1 + weight)``."""
    return rms(x, epsilon=epsilon) * (1 + scale)


def rms_outside(x, scale, *, epsilon):
    """bzhangGo/rmsnorm: ``rms_x = norm_x d^(-1/2)``, ``x / (rms_x + eps)``."""
    return scale * x / (length(x) * x.shape[-1] ** -0.5 + epsilon)


def rms_partial(x, scale, *, epsilon):
    """The same over the first 6.25 % of the features, at least one."""
    count = max(1, x.shape[-1] // 16)
    return scale * x / (length(x[..., :count]) * count**-0.5 + epsilon)


def rms_input_scaled(x, scale, *, epsilon):
    """Weight before the statistics: ``z / sqrt(mean(z^2) + eps)``, ``z = (1 + g) x``."""
    return rms((1 + scale) * x, epsilon=epsilon)


def scale_norm(x, scale, *, epsilon):
    """1910.05895, eq. 2: ``scale / norm.clamp(min=eps) * x``."""
    size = length(x)
    return scale / np.where(size.real < epsilon, epsilon, size) * x


def l2(x, *, epsilon):
    """2410.01131, section 2; epsilon inside the root."""
    return x / np.sqrt((x * x).sum(-1, keepdims=True) + epsilon)


# --- Norms without statistics: zlab-princeton/Derf, file by file ---

POINTWISE = {
    "arctan": lambda x: 2 / np.pi * np.arctan(x),
    "isru": lambda x: x / np.sqrt(x**2 + 1),
    "expsign": lambda x: -np.sign(x.real) * (np.exp(-size(x)) - 1),
    "satursin": lambda x: np.sin(clip(x, -np.pi / 2, np.pi / 2)),
    "cubsign": lambda x: x**3 / (size(x) ** 3 + 1),
    "relsign": lambda x: x / (np.sqrt(x**2 + 1) + 1),
    "smoothsign": lambda x: x / (1 + size(x)),
    "saturlog": lambda x: np.sign(x.real) * (1 - 1 / (np.log(size(x) + 1) + 1)),
    "exproot": lambda x: np.sign(x.real) * (1 - np.exp(-np.sqrt(size(x)))),
    "linear_clip": lambda x: clip(x, -1, 1),
    "logquad_clip": lambda x: clip(np.sign(x.real) * np.log(x**2 + 1), -1, 1),
    "logsign_clip": lambda x: clip(np.sign(x.real) * np.log(size(x) + 1), -1, 1),
}
# Where phi has a kink in its argument: a gradient within rounding of one is not defined.
KINKS = {
    "satursin": (np.pi / 2,),  # of the second derivative only
    "exproot": (0.0,),
    "linear_clip": (1.0,),
    "logquad_clip": (0.0, np.sqrt(np.e - 1)),
    "logsign_clip": (0.0, np.e - 1),
}


def pointwise(x, alpha, scale, bias, shift=0.0, *, phi):
    """2512.10938: ``weight * phi(alpha x + shift) + bias``."""
    return scale * phi(alpha * x + shift) + bias


SCALE = {"scale": Parameter(lambda width: 1.0)}
BIAS = {"bias": Parameter(lambda width: 0.0)}
ZERO_SCALE = {"scale": Parameter(lambda width: 0.0)}
DYT = {"alpha": Parameter(lambda width: 0.5, vector=False), **SCALE, **BIAS}
DERF = {"shift": Parameter(lambda width: 0.0, vector=False), **DYT}
ORACLES = {
    "layer": Oracle(layer, SCALE | BIAS),
    "layer_no_bias": Oracle(layer, SCALE),
    "layer_plain": Oracle(layer, {}),
    "layer_zero_centred": Oracle(layer_zero_centred, ZERO_SCALE | BIAS),
    "layer_std": Oracle(layer_std, SCALE | BIAS),
    "rms": Oracle(rms, SCALE),
    "rms_plain": Oracle(rms, {}),
    "rms_zero_centred": Oracle(rms_zero_centred, ZERO_SCALE),
    "rms_outside": Oracle(rms_outside, SCALE, 1e-8),
    "rms_cast_first": Oracle(rms, SCALE),
    "rms_partial": Oracle(rms_partial, SCALE, 1e-8),
    "rms_input_scaled": Oracle(rms_input_scaled, ZERO_SCALE),
    "scale": Oracle(scale_norm, {"scale": Parameter(np.sqrt, vector=False)}, 1e-5),
    "l2": Oracle(l2, {}, 1e-12),
    "ada": Oracle(ada, {}, 1e-5),
    "detach": Oracle(detach, {}, 1e-5),
    "dyt": Oracle(partial(pointwise, phi=np.tanh), DYT, None),
    "derf": Oracle(partial(pointwise, phi=erf), DERF, None),
    **{n: Oracle(partial(pointwise, phi=phi), DERF, None) for n, phi in POINTWISE.items()},
}
