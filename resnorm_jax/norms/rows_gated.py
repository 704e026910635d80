"""More norms by name: by group, with a gate, for a condition, with a factor made from the row."""

from math import gcd

from resnorm_jax.norms.adaptive import AdaptiveLayerNorm, AdaptiveRMSNorm, GatedRMSNorm
from resnorm_jax.norms.table import NormParameter, NormSpec
from resnorm_jax.ops.norms import grouped_rms_norm, seed_norm

SCALE = NormParameter("scale", 1.0)
MAMBA_2 = "Dao and Gu 2024 (arXiv 2405.21060)"
DIT = "Peebles and Xie 2022 (arXiv 2212.09748)"
ROWS: tuple[NormSpec, ...] = (
    NormSpec(
        "rms_grouped",
        "x / sqrt(mean(x^2) + eps) * g, mean over each of gcd(8, D) equal runs of neighbouring "
        "features; g 1 at first",
        f"{MAMBA_2}; Mamba-2 of huggingface/transformers",
        # As many runs as divide both: a width that 8 does not divide has fewer.
        lambda x, p, *, epsilon: grouped_rms_norm(
            x, p["scale"], groups=gcd(8, x.shape[-1]), epsilon=epsilon
        ),
        (SCALE,),
        used_by="Mamba-2, Zamba 2; DiffLlama without the scale (number of groups differs)",
        since="0.2.0",
    ),
    NormSpec(
        "rms_gated",
        "y / sqrt(mean(y^2) + eps) * g, y = x silu(z), silu(z) = z sigmoid(z), z = Dense(x) "
        "without bias, its kernel [D, D] LeCun-normal and g 1 at first",
        f"{MAMBA_2}; Mamba-2 of huggingface/transformers, where z is given",
        module=GatedRMSNorm,
        used_by="Mamba-2",
        since="0.2.0",
    ),
    NormSpec(
        "seed",
        "(tanh(x . b) a + g) x / sqrt(mean(x^2) + eps), x . b the sum over all features; a "
        "(seed_alpha) 1, b (seed_beta) 0, g 1 at first",
        "Cai et al. 2025 (arXiv 2510.22777), SeeDNorm",
        lambda x, p, *, epsilon: seed_norm(
            x, p["scale"], p["seed_alpha"], p["seed_beta"], epsilon=epsilon
        ),
        (SCALE, NormParameter("seed_alpha", 1.0), NormParameter("seed_beta", 0.0)),
        since="0.2.0",
    ),
    NormSpec(
        "ada_layer",
        "(x - mean(x)) / sqrt(var(x) + eps) * (1 + scale(c)) + shift(c), var biased; (shift, "
        "scale)(c) = Dense(silu(c)) in this order, 0 at first, silu(c) = c sigmoid(c), c [B, C] "
        "the condition",
        f"{DIT}; facebookresearch/DiT models.py",
        module=AdaptiveLayerNorm,
        scale_offset=1.0,
        context=("condition",),
        used_by="DiT, Qwen2.5-Omni",
        since="0.2.0",
    ),
    NormSpec(
        "ada_rms",
        "x / sqrt(mean(x^2) + eps) * (1 + scale(c)); scale(c) = Dense(silu(c)), 0 at first, "
        "silu(c) = c sigmoid(c), c [B, C] the condition",
        f"{DIT}, without mean and shift",
        module=AdaptiveRMSNorm,
        scale_offset=1.0,
        context=("condition",),
        used_by="Voxtral Realtime (a network with GELU in place of the Dense)",
        since="0.2.0",
    ),
)
