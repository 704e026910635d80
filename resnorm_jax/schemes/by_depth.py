"""Arrangements scaled by depth: constants, init gains and norms that depend on the place."""

import math

from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import ROLES, Arrangement, Changes, Init, Inside

# The projections that carry a branch's magnitude; queries and keys only choose.
CARRIERS = ("value", "out", "fc1", "fc2")


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


def count_of_sublayers(place: Place) -> float:
    """The sublayers of the whole stack, 2 N as a rule."""
    return float(place.sublayers)


def inverse_root_of_layer(place: Place) -> float:
    """``1 / sqrt(l)``, l the layer (not the sublayer)."""
    return place.layer**-0.5


def minicpm_branch(place: Place) -> float:
    """``1.4 / sqrt(N)`` (``scale_depth`` of MiniCPM)."""
    return 1.4 * place.layers**-0.5


def unit_skip(place: Place) -> float:
    """``sqrt((i - 1) / i)``, i = s + 1 at sublayer s: the stream's share of a unit variance."""
    return (place.sublayer / (place.sublayer + 1)) ** 0.5


def unit_branch(place: Place) -> float:
    """``1 / sqrt(i)``, i = s + 1 at sublayer s: the branch's share of a unit variance."""
    return (place.sublayer + 1) ** -0.5


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


def post_ln(place: Place) -> Changes:
    """A layer of Post-LN in a row of Pre-LN."""
    return {"norm_before": None, "norm_on_stream": NORM}


def mix_ln(place: Place) -> Changes:
    """Mix-LN: Post-LN in the first quarter of the layers."""
    return post_ln(place) if place.layer <= place.layers // 4 else {}


# A mixture by depth is a function of the place to the fields that differ there, as `mix_ln`; so
# "Post-LN in the last layer only" is
# ``by_layer=lambda p: post_ln(p) if p.layer == p.layers else {}``.
ROWS = (
    Arrangement(
        name="deepnorm",
        equation="LN(a x + f(x)), a = (2N)^(1/4); Xavier-normal gain (8N)^(-1/4) on v, out, fc1, "
        "fc2 and 1 on q, k; an encoder of N layers beside a decoder of M has a = 0.81 (N^4 "
        "M)^(1/16) and gain 0.87 (N^4 M)^(-1/16), that decoder a = (3M)^(1/4) and gain "
        "(12M)^(-1/4); no final norm",
        source="Wang et al. 2022 (arXiv 2203.00555), figure 2; microsoft/torchscale "
        "torchscale/architecture/encoder.py and decoder.py, which divide kernels of other first "
        "values by the gain's inverse",
        used_by="MiniMax-Text-01",
        norm_on_stream=NORM,
        skip_scale=deepnorm_alpha,
        init=Init("normal", dict.fromkeys(CARRIERS, deepnorm_beta)),
        deep=True,
        usual=True,
    ),
    Arrangement(
        name="keel",
        equation="LN(a x + f(LN'(x))), a the number of sublayers of the stack (2N; 3N with "
        "cross-attention), two norms a sublayer; no final norm",
        source="Chen and Wei 2026 (arXiv 2601.19895); no public code: all layers are alike here",
        norm_before=NORM,
        norm_on_stream=NORM,
        skip_scale=count_of_sublayers,
        deep=True,
        usual=True,
    ),
    Arrangement(
        name="layer_norm_scaling",
        equation="x + f(LN(x) / sqrt(l)), l the layer from 1, the same for both its sublayers; "
        "final LN, not scaled",
        source="Sun et al. 2025 (arXiv 2502.05795); lmsdss/LayerNorm-Scaling",
        norm_before=NORM,
        final_norm=NORM,
        read_scale=inverse_root_of_layer,
        usual=True,
    ),
    Arrangement(
        name="mix_ln",
        equation="LN(x + f(x)) in layers 1 to floor(N / 4), x + f(LN(x)) in all later ones; final "
        "LN",
        source="Li et al. 2024 (arXiv 2412.13795); pixeli99/MixLN",
        norm_before=NORM,
        final_norm=NORM,
        by_layer=mix_ln,
    ),
    Arrangement(
        name="depth_scaled",
        equation="x + 1.4 / sqrt(N) f(LN(x)), N the layers; final LN",
        source="Hu et al. 2024 (arXiv 2404.06395); huggingface/transformers "
        "models/minicpm3/modeling_minicpm3.py (scale_depth). Left out: its factors 12 of the "
        "embedding and 256 / D of the head's input",
        used_by="MiniCPM, MiniCPM 3",
        norm_before=NORM,
        final_norm=NORM,
        branch_scale=minicpm_branch,
        aliases=("minicpm",),
    ),
    Arrangement(
        name="variance_preserving",
        equation="sqrt((i - 1) / i) x + LN'(f(LN(x))) / sqrt(i), i = s + 1, s the sublayer from 1 "
        "in the whole stack; final LN",
        source="huggingface/transformers models/beam/modular_beam.py (depth_scaled_residual_add)",
        used_by="Beam",
        norm_before=NORM,
        norm_after=NORM,
        final_norm=NORM,
        skip_scale=unit_skip,
        branch_scale=unit_branch,
        aliases=("beam",),
    ),
    Arrangement(
        name="ds_init",
        equation="LN(x + f(x)); Xavier-uniform gain 1 / sqrt(l) on all kernels of layer l, from 1 "
        "(q, k, v, out, fc1 and its gate, fc2); no final norm",
        source="Zhang et al. 2019 (arXiv 1908.11365); bzhangGo/zero scales the variance, not the "
        "deviation, by 1 / sqrt(l)",
        norm_on_stream=NORM,
        init=Init("uniform", dict.fromkeys(ROLES, inverse_root_of_layer)),
    ),
    Arrangement(
        name="t_fixup",
        equation="x + f(x), no norm; Xavier-uniform gain 0.67 N^(-1/4) on v, out, fc1, fc2 and 1 "
        "on q, k, token embeddings N(0, 1) times (9N)^(-1/4); in a decoder of M layers the gain "
        "is (9M)^(-1/4), and so is that of its embeddings",
        source="Huang et al. 2020 (ICML 2020, T-Fixup; without norm after arXiv 1901.09321); "
        "layer6ai-labs/T-Fixup fairseq/modules/transformer_layer.py, where v has sqrt(2) more, "
        "which undoes the gain 1 / sqrt(2) of fairseq",
        init=Init("uniform", dict.fromkeys(CARRIERS, t_fixup_gain), t_fixup_embedding),
    ),
    Arrangement(
        name="sub_ln",
        equation="x + f(LN(x)), f with one more LN before its last projection (of the D joined "
        "heads; of the activations, after the gate where there is one); Xavier-normal gain "
        "sqrt(log(2N)) on v, out, fc1, fc2 and 1 on q, k, natural logarithm; an encoder of N "
        "layers beside a decoder of M has sqrt(log(3M) log(2N) / 3), that decoder sqrt(log(3M)); "
        "final LN",
        source="Wang et al. 2022 (arXiv 2210.06423); microsoft/torchscale "
        "torchscale/architecture/encoder.py and decoder.py, which multiply kernels of other first "
        "values by the gain",
        used_by="BEiT-3; without the gain Kosmos-2, BitNet",
        norm_before=NORM,
        final_norm=NORM,
        inside=Inside(heads_norm=NORM, mlp_norm=NORM),
        init=Init("normal", dict.fromkeys(CARRIERS, magneto_gain)),
        aliases=("magneto",),
        usual=True,
    ),
)
