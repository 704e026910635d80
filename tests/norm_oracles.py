"""Every norm of the table in float64 NumPy, from the papers' equations and the official formulas.

A row is written as its source writes it, not as the package computes it. All take complex numbers
(no conjugate, no built-in absolute value), so that `oracles.gradients` differentiates them by the
complex step; ``.real`` is then exactly a stopped gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import gcd

import numpy as np
import oracles
from scipy.special import erf


@dataclass(frozen=True)
class Parameter:
    """A parameter of a norm.

    ``first``: value of every element at first, as a function of the width; None if it is random.
    ``vector``: whether it has the width's shape, else it is a scalar; ``axes`` in place of either.
    ``size``: of the random values that tests give it, so that sums over the width stay near 1.
    ``decays``: whether weight decay applies.
    """

    first: Callable[[int], float] | None
    vector: bool = True
    axes: Callable[[int], tuple[int, ...]] | None = None
    size: Callable[[int], float] = lambda width: 1.0
    decays: bool = False

    def shape(self, width):
        if self.axes is not None:
            return self.axes(width)
        return (width,) if self.vector else ()

    def start(self, width):
        return 0.0 if self.first is None else self.first(width)


@dataclass(frozen=True)
class Oracle:
    """``forward(x, **parameters)``, with ``epsilon`` too if the equation has one.

    A parameter of an inner projection, ``modulation/kernel``, is passed as ``modulation_kernel``;
    ``context`` holds what the norm is told at each call, in float64.
    """

    forward: Callable[..., np.ndarray]
    parameters: dict[str, Parameter]
    epsilon: float | None = 1e-6
    context: dict[str, np.ndarray] = field(default_factory=dict)

    def __call__(self, x, parameters, epsilon=None):
        options = {} if self.epsilon is None else {"epsilon": epsilon or self.epsilon}
        named = {key.replace("/", "_"): value for key, value in parameters.items()}
        return self.forward(x, **named, **self.context, **options)

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


def silu(x):
    return x / (1 + np.exp(-x))


def rms_grouped(x, scale, *, epsilon, groups=None):
    """The equation of `rms` in each run of features."""
    groups = gcd(8, x.shape[-1]) if groups is None else groups
    runs = np.split(x, groups, axis=-1)
    return scale * np.concatenate([rms(run, epsilon=epsilon) for run in runs], axis=-1)


def rms_gated(x, scale, gate_kernel, *, epsilon):
    """Mamba-2, ``norm_before_gate=False``: the gate multiplies, then the norm."""
    return rms(x * silu(x @ gate_kernel), scale, epsilon=epsilon)


def seed(x, scale, seed_alpha, seed_beta, *, epsilon):
    """2510.22777: ``[tanh(x . beta) alpha + gamma] x / RMS(x)``."""
    dynamic = np.tanh((x * seed_beta).sum(-1, keepdims=True)) * seed_alpha
    return (dynamic + scale) * rms(x, epsilon=epsilon)


# --- Norms for a condition ---


def ada_layer(x, modulation_kernel, modulation_bias, *, condition, epsilon):
    """2212.09748, DiT's final layer: ``shift, scale = Linear(SiLU(c)).chunk(2)``."""
    shift, scale = np.split(silu(condition) @ modulation_kernel + modulation_bias, 2, axis=-1)
    return layer(x, epsilon=epsilon) * (1 + scale) + shift


def ada_rms(x, modulation_kernel, modulation_bias, *, condition, epsilon):
    """The same without mean and shift."""
    scale = silu(condition) @ modulation_kernel + modulation_bias
    return rms(x, epsilon=epsilon) * (1 + scale)


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
CONDITION = np.array([[0.75, -1.5, 0.25]])  # exact in float32; one row serves all rows


def modulation(parts):
    """A Dense of the condition, zero at first."""
    return {
        "modulation/kernel": Parameter(
            lambda width: 0.0, axes=lambda width: (CONDITION.shape[1], parts * width), decays=True
        ),
        "modulation/bias": Parameter(lambda width: 0.0, axes=lambda width: (parts * width,)),
    }


GATE = Parameter(
    None, axes=lambda width: (width, width), size=lambda width: width**-0.5, decays=True
)
SEED = {
    "seed_alpha": Parameter(lambda width: 1.0, decays=True),
    "seed_beta": Parameter(lambda width: 0.0, size=lambda width: width**-0.5, decays=True),
}
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
    "rms_grouped": Oracle(rms_grouped, SCALE),
    "rms_gated": Oracle(rms_gated, SCALE | {"gate/kernel": GATE}),
    "seed": Oracle(seed, SCALE | SEED),
    "ada_layer": Oracle(ada_layer, modulation(2), context={"condition": CONDITION}),
    "ada_rms": Oracle(ada_rms, modulation(1), context={"condition": CONDITION}),
}
