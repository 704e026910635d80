"""The norms by name, one row each: function or module, parameters as data, source."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax

from resnorm_jax.norms.batch import SequenceBatchNorm
from resnorm_jax.norms.layer import LayerNorm, RMSNorm
from resnorm_jax.norms.power import PowerNorm
from resnorm_jax.norms.rows_gated import ROWS as GATED_ROWS
from resnorm_jax.norms.table import NormParameter, NormSpec, Parameters
from resnorm_jax.ops.norms import (
    ada_norm,
    detach_norm,
    input_scaled_rms_norm,
    l2_norm,
    layer_norm,
    llama_rms_norm,
    outside_rms_norm,
    pointwise_norm,
    rms_norm,
    scale_norm,
    std_layer_norm,
)
from resnorm_jax.registry import Registry

SCALE = NormParameter("scale", 1.0)
BIAS = NormParameter("bias", 0.0)
ALPHA = NormParameter("alpha", 0.5, per_feature=False)
SHIFT = NormParameter("shift", 0.0, per_feature=False)
LAYER = "Ba et al. 2016 (arXiv 1607.06450), eq. 3-4"
RMS = "Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4"
DYT = "Zhu et al. 2025 (arXiv 2503.10622); jiachenzhu/DyT"
DERF = "2512.10938; zlab-princeton/Derf"
# The functions of `pointwise_norm` by name, for people; without DyT's and Derf's own.
PHI = {
    "arctan": "2 / pi arctan(z)",
    "isru": "z / sqrt(z^2 + 1)",
    "expsign": "sign(z) (1 - exp(-|z|))",
    "satursin": "sin(z), z clipped to [-pi / 2, pi / 2]",
    "cubsign": "z^3 / (|z|^3 + 1)",
    "relsign": "z / (sqrt(z^2 + 1) + 1)",
    "smoothsign": "z / (|z| + 1)",
    "saturlog": "sign(z) (1 - 1 / (log(|z| + 1) + 1))",
    "exproot": "sign(z) (1 - exp(-sqrt(|z|)))",
    "linear_clip": "z clipped to [-1, 1]",
    "logquad_clip": "sign(z) log(z^2 + 1) clipped to [-1, 1]",
    "logsign_clip": "sign(z) log(|z| + 1) clipped to [-1, 1]",
}


def _point(x: jax.Array, p: Parameters, *, function: str) -> jax.Array:
    return pointwise_norm(x, p["alpha"], p.get("shift"), p["scale"], p["bias"], function=function)


def _root_of_width(width: int) -> float:
    """``sqrt(D)``."""
    return width**0.5


def _pointwise(name: str) -> NormSpec:
    return NormSpec(
        name,
        f"g phi(a x + s) + b, phi(z) = {PHI[name]}, scalars a and s; a 0.5, s 0, g 1, b 0 at first",
        f"function of the comparison in arXiv {DERF} ViT/other_functions/{name}.py",
        partial(_point, function=name),
        (ALPHA, SHIFT, SCALE, BIAS),
        epsilon=None,
    )


_ZERO_CENTRED: dict[str, Any] = {"scale_init": nn.initializers.zeros, "scale_offset": 1.0}
ROWS: tuple[NormSpec, ...] = (
    NormSpec(
        "layer",
        "(x - mean(x)) / sqrt(var(x) + eps) * g + b, var biased; g 1, b 0 at first",
        LAYER,
        module=LayerNorm,
        used_by="BERT, GPT-2, ViT, Whisper",
    ),
    NormSpec(
        "layer_no_bias",
        "(x - mean(x)) / sqrt(var(x) + eps) * g, var biased; g 1 at first",
        LAYER,
        module=partial(LayerNorm, use_bias=False),
        used_by="Cohere Command",
    ),
    NormSpec(
        "layer_plain",
        "(x - mean(x)) / sqrt(var(x) + eps), var biased",
        "Xu et al. 2019 (arXiv 1911.07013), LayerNorm-simple",
        lambda x, p, *, epsilon: layer_norm(x, epsilon=epsilon),
        used_by="OLMo 1, DiT",
    ),
    NormSpec(
        "layer_zero_centred",
        "(x - mean(x)) / sqrt(var(x) + eps) * (1 + g) + b, var biased; g 0, b 0 at first",
        f"{LAYER}; LayerNorm1P of NVIDIA/NeMo",
        module=lambda **options: LayerNorm(**{**_ZERO_CENTRED, **options}),
        scale_offset=1.0,
        used_by="Nemotron",
    ),
    NormSpec(
        "layer_std",
        "(x - mean(x)) / (std(x) + eps) * g + b, std unbiased (over D - 1; 0 where D = 1); g 1, b "
        "0 at first",
        "common tutorial code; see resnorm_jax.std_layer_norm",
        lambda x, p, *, epsilon: std_layer_norm(x, p["scale"], p["bias"], epsilon=epsilon),
        (SCALE, BIAS),
    ),
    NormSpec(
        "rms",
        "x / sqrt(mean(x^2) + eps) * g; g 1 at first",
        RMS,
        module=RMSNorm,
        used_by="Llama, Mistral, Qwen, T5",
    ),
    NormSpec(
        "rms_plain",
        "x / sqrt(mean(x^2) + eps)",
        "Qin et al. 2023 (arXiv 2307.14995), SimpleRMSNorm",
        lambda x, p, *, epsilon: rms_norm(x, epsilon=epsilon),
        used_by="TransNormerLLM, Llama 4 (queries and keys)",
    ),
    NormSpec(
        "rms_zero_centred",
        "x / sqrt(mean(x^2) + eps) * (1 + g); g 0 at first",
        f"{RMS}; GemmaRMSNorm of huggingface/transformers",
        module=lambda **options: RMSNorm(**{**_ZERO_CENTRED, **options}),
        scale_offset=1.0,
        used_by="Gemma 1-3, Qwen3-Next",
    ),
    NormSpec(
        "rms_outside",
        "x / (sqrt(mean(x^2)) + eps) * g; g 1 at first",
        f"{RMS}; bzhangGo/rmsnorm",
        lambda x, p, *, epsilon: outside_rms_norm(x, p["scale"], epsilon=epsilon),
        (SCALE,),
        epsilon=1e-8,
    ),
    NormSpec(
        "rms_cast_first",
        "cast(x / sqrt(mean(x^2) + eps)) * g, cast to the dtype of x, else as rms; g 1 at first",
        "LlamaRMSNorm of huggingface/transformers",
        lambda x, p, *, epsilon: llama_rms_norm(x, p["scale"], epsilon=epsilon),
        (SCALE,),
        used_by="Llama (huggingface/transformers)",
    ),
    NormSpec(
        "rms_partial",
        "x / (sqrt(mean(y^2)) + eps) * g, y the first max(1, floor(D / 16)) features of x (6.25 "
        "%); g 1 at first",
        "Zhang and Sennrich 2019 (arXiv 1910.07467); bzhangGo/rmsnorm",
        lambda x, p, *, epsilon: outside_rms_norm(x, p["scale"], epsilon=epsilon, fraction=0.0625),
        (SCALE,),
        epsilon=1e-8,
    ),
    NormSpec(
        "rms_input_scaled",
        "z / sqrt(mean(z^2) + eps), z = (1 + g) x; g 0 at first",
        "Muse Spark of huggingface/transformers",
        lambda x, p, *, epsilon: input_scaled_rms_norm(x, p["scale"], epsilon=epsilon),
        (NormParameter("scale", 0.0),),
        scale_offset=1.0,
        used_by="Muse Spark",
    ),
    NormSpec(
        "scale",
        "g x / max(|x|, eps), |x| = sqrt(sum(x^2)), scalar g, sqrt(D) at first",
        "Nguyen and Salazar 2019 (arXiv 1910.05895); tnq177/transformers_without_tears",
        lambda x, p, *, epsilon: scale_norm(x, p["scale"], epsilon=epsilon),
        (NormParameter("scale", _root_of_width, per_feature=False),),
        epsilon=1e-5,
    ),
    NormSpec(
        "l2",
        "x / sqrt(sum(x^2) + eps)",
        "Loshchilov et al. 2024 (arXiv 2410.01131), there without eps",
        lambda x, p, *, epsilon: l2_norm(x, epsilon=epsilon),
        epsilon=1e-12,
        used_by="nGPT",
    ),
    NormSpec(
        "ada",
        "(1 - sg(0.1 z)) z, z = (x - mean(x)) / (std(x) + eps), std unbiased (over D - 1), sg "
        "stops the gradient",
        "Xu et al. 2019 (arXiv 1911.07013); lancopku/AdaNorm",
        lambda x, p, *, epsilon: ada_norm(x, epsilon=epsilon),
        epsilon=1e-5,
    ),
    NormSpec(
        "detach",
        "(x - sg(mean(x))) / (sg(std(x)) + eps), std unbiased (over D - 1), sg stops the gradient",
        "Xu et al. 2019 (arXiv 1911.07013); lancopku/AdaNorm",
        lambda x, p, *, epsilon: detach_norm(x, epsilon=epsilon),
        epsilon=1e-5,
    ),
    NormSpec(
        "dyt",
        "g tanh(a x) + b, scalar a; a 0.5, g 1, b 0 at first",
        DYT,
        partial(_point, function="tanh"),
        (ALPHA, SCALE, BIAS),
        epsilon=None,
    ),
    NormSpec(
        "derf",
        "g erf(a x + s) + b, scalars a and s; a 0.5, s 0, g 1, b 0 at first",
        f"arXiv {DERF} (ViT/dynamic_erf.py)",
        partial(_point, function="erf"),
        (ALPHA, SHIFT, SCALE, BIAS),
        epsilon=None,
    ),
    NormSpec(
        "batch",
        "(x - mean_B(x)) / sqrt(var_B(x) + eps) * g + b; in training mean_B and var_B (biased) of "
        "each feature over all valid positions of all rows, else running ones, 0 and 1 at first, "
        "of which an update keeps 0.99; 0 where masked; g 1, b 0 at first",
        "Ioffe and Szegedy 2015 (arXiv 1502.03167)",
        module=SequenceBatchNorm,
        epsilon=1e-5,
        context=("mask", "deterministic"),
        across_rows=True,
        state="running mean and variance",
        used_by="PatchTST",
        since="0.2.0",
    ),
    NormSpec(
        "power",
        "z g + b, z = u / sqrt(m + eps), u = x / sqrt(mean(x^2) + eps); M [D] the mean of u^2 "
        "over all valid positions of all rows; m = M in the first 10000 updates, then R as the "
        "update before left it, and R where nothing is trained; R [D] 1 at first, after an update "
        "R = 0.9 R + 0.1 M, in update n of the first 9999 with R + (M - R) / n in place of R; the "
        "gradient of u is h / sqrt(M + eps), h = d - 0.1 k z, d the gradient of z, k [D] 0 at "
        "first and k + the mean of h z after each update; 0 where masked; g 1, b 0 at first",
        "Shen et al. 2020 (arXiv 2003.07845); sIncerass/powernorm",
        module=PowerNorm,
        epsilon=1e-5,
        context=("mask", "deterministic"),
        across_rows=True,
        state="running mean square, running gradient mean",
        since="0.2.0",
    ),
    *map(_pointwise, PHI),
)


def _dyt_at(alpha: float) -> NormSpec:
    return NormSpec(
        f"dyt_{alpha:g}",
        f"g tanh(a x), scalar a; a {alpha:g}, g 1 at first",
        DYT,
        lambda x, p: pointwise_norm(x, p["alpha"], None, p["scale"], None, function="tanh"),
        (NormParameter("alpha", alpha, per_feature=False), SCALE),
        epsilon=None,
        since="0.2.0",
    )


# DyT's recipe for language models, by site: ``norms=DYT_LLAMA`` in a Pre-LN encoder. Its learned scale
# of the embedding, sqrt(D) at first, is not among them.
DYT_LLAMA: dict[str, NormSpec] = {
    "attention/norm_before": _dyt_at(0.8),
    "feed_forward/norm_before": _dyt_at(0.2),
    "final_norm": _dyt_at(0.2),
}
NORMS: Registry[NormSpec] = Registry("norm", (*ROWS, *GATED_ROWS))
