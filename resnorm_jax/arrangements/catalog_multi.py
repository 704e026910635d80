"""Arrangements whose stream is several arrays. Beside catalog.py, the schemes known by name."""

from resnorm_jax.arrangements.depth_rules import Place
from resnorm_jax.arrangements.spec import ROLES, Arrangement, Init, NormSlot

NORM = NormSlot()
HC = "Zhu et al. 2024 (arXiv 2409.19606)"
FRAC = "Zhu et al. 2025 (arXiv 2503.14125)"
MHC = "Xie et al. 2025 (arXiv 2512.24880)"


def inverse_root_depth(place: Place) -> float:
    """B2T's init gain, ``N**(-1/2)`` (rescaling_init of takase/b2t_connection)."""
    return place.layers**-0.5


def siamese_scale(place: Place) -> float:
    """SiameseNorm's factor on a branch in the Post-LN stream, ``(2 l)**(-1/2)``."""
    return (2 * place.layer) ** -0.5


ROWS = (
    Arrangement(
        name="hyper_connections",
        equation="A^T H + B f(LN(a^T H)), 4 streams H; A = I, B = 1, a = e_(s mod 4) at first; "
        "final LN of their sum",
        source=f"{HC}, section 2.1, 2.3 and Algorithm 2",
        norm_before=NORM,
        final_norm=NORM,
        stream="streams",
        usual=True,
    ),
    Arrangement(
        name="dynamic_hyper_connections",
        equation="A^T H + B f(LN(a^T H)), 4 streams H, each weight + alpha tanh(LN(H) W), alpha "
        "0.01, W 0 at first; final LN of their sum",
        source=f"{HC}, section 2.2, 2.3 and Algorithm 2",
        norm_before=NORM,
        final_norm=NORM,
        stream="dynamic_streams",
    ),
    Arrangement(
        name="frac_connections",
        equation="A^T H + B f(LN(Y^T H)), H the stream cut in 4; A = Y = I, B = 1 at first; final LN",
        source=f"{FRAC}, eq. 6-8, 15 and Algorithm 2",
        norm_before=NORM,
        final_norm=NORM,
        stream="fractions",
    ),
    Arrangement(
        name="dynamic_frac_connections",
        equation="A^T H + B f(LN(Y^T H)), H the stream cut in 4, each weight + alpha tanh(RMS(H) W), "
        "alpha 0.01, W 0 at first; final LN",
        source=f"{FRAC}, eq. 11-15 and Algorithm 2",
        norm_before=NORM,
        final_norm=NORM,
        stream="dynamic_fractions",
    ),
    Arrangement(
        name="mhc",
        equation="R^T H + 2 sigmoid(z) f(LN(sigmoid(z)^T H)), 4 streams H, R = Sinkhorn(z) in 20 "
        "steps, z = alpha RMS(H) W + b, alpha 0.01 at first; final LN of their sum",
        source=f"{MHC}, eq. 7-9, table 5; deepseek-ai/TileKernels tile_kernels/torch/mhc.py",
        norm_before=NORM,
        final_norm=NORM,
        stream="sinkhorn_streams",
        aliases=("manifold_constrained_hyper_connections",),
    ),
    Arrangement(
        name="mhc_lite",
        equation="as mhc, R = sum of softmax(z)_k P_k over all 24 permutations, f(LN(.)) as there; "
        "b of the identity 0, of the others -8 at first",
        source="Yang and Gao 2026 (arXiv 2601.05732); FFTYYY/mhc-lite hyper_conn/mhc_lite.py",
        norm_before=NORM,
        final_norm=NORM,
        stream="permuted_streams",
    ),
    Arrangement(
        name="unmixed_hyper_connections",
        equation="as mhc, R = I: H + 2 sigmoid(z) f(LN(sigmoid(z)^T H)); final LN of sigmoid(z)^T H",
        source="transformers models/hy_v4/modeling_hy_v4.py (HYV4HyperConnection, HYV4HyperHead), "
        f"after {MHC}",
        norm_before=NORM,
        final_norm=NORM,
        stream="unmixed_streams",
        aliases=("hy_v4",),
    ),
    Arrangement(
        name="resi_dual",
        equation="x = LN(x + f(x)), r = r + f(x), both the input at first; out x + LN(r)",
        source="Xie et al. 2023 (arXiv 2304.14802); microsoft/ResiDual resi_dual/resi_dual.py",
        norm_on_stream=NORM,
        final_norm=NORM,
        stream="dual",
    ),
    Arrangement(
        name="siamese_norm",
        equation="z = f(LN(LN(x) + LN(y))), x = LN(x) + z / sqrt(2 l), y = y + z; "
        "out LN(LN(x) + LN(y))",
        source="Li et al. 2026 (arXiv 2602.08064); Qwen-Applications/SiameseNorm "
        "deit-model-siamesenorm.py",
        norm_before=NORM,
        final_norm=NORM,
        stream="siamese",
        branch_scale=siamese_scale,
    ),
    Arrangement(
        name="bottom_to_top",
        equation="LN(x + f(x)), in a layer's last sublayer LN(x + f(x) + the layer's input); "
        "Xavier gain N^(-1/2) on all kernels",
        source="Takase et al. 2022 (arXiv 2206.00330); takase/b2t_connection "
        "fairseq/modules/transformer_layer.py",
        norm_on_stream=NORM,
        stream="bottom",
        init=Init(gains=dict.fromkeys(ROLES, inverse_root_depth)),
        aliases=("b2t",),
    ),
    Arrangement(
        name="input_lambdas",
        equation="x + f(LN(x)), each layer starting from l x + m x0, x0 the normed input; l 1.15 to "
        "1.05, m 0.2 to 0.05 at first; final LN",
        source="karpathy/nanochat nanochat/gpt.py (resid_lambdas, x0_lambdas), without its smear "
        "and backout",
        embedding_norm=NORM,
        norm_before=NORM,
        final_norm=NORM,
        stream="input_mixture",
        aliases=("x0_lambdas",),
    ),
)
