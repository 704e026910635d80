"""Arrangements of one stream that weigh the skip and the branch, one row each."""

from resnorm_jax.arrangements.depth_rules import Place, zero
from resnorm_jax.arrangements.spec import Arrangement, Init, NormSlot

NORM = NormSlot()
DIT_NORM = NormSlot(norm="layer_plain")
GTRXL = "Parisotto et al. 2019 (arXiv 1910.06764)"


def unit_skip(place: Place) -> float:
    """``sqrt((i - 1) / i)`` with i = 2 at the first sublayer: the stream's share of a unit variance."""
    return (place.sublayer / (place.sublayer + 1)) ** 0.5


def unit_branch(place: Place) -> float:
    """``1 / sqrt(i)`` with i = 2 at the first sublayer: the branch's share."""
    return (place.sublayer + 1) ** -0.5


def minicpm_branch(place: Place) -> float:
    """``1.4 / sqrt(N)`` (``scale_depth`` of MiniCPM)."""
    return 1.4 * place.layers**-0.5


def fixup_branches(place: Place) -> int:
    """Residual branches of the model: 2 a layer of an encoder, 3 a layer of a decoder."""
    return place.sublayers + {"encoder": 3, "decoder": 2}[place.stack] * place.other


def fixup_attention(place: Place) -> float:
    """``L**(-1/6)`` on queries, keys and values, L branches: Fixup with m = 4."""
    return fixup_branches(place) ** (-1 / 6)


def fixup_feed_forward(place: Place) -> float:
    """``L**(-1/2)`` on the first projection, L branches: Fixup with m = 2."""
    return fixup_branches(place) ** -0.5


ROWS = (
    Arrangement(
        name="variance_preserving",
        equation="sqrt((i-1)/i) x + LN(f(LN(x))) / sqrt(i), i = 2, 3, .. over sublayers; final LN",
        source="huggingface/transformers models/beam/modular_beam.py (depth_scaled_residual_add)",
        norm_before=NORM,
        norm_after=NORM,
        final_norm=NORM,
        skip_scale=unit_skip,
        branch_scale=unit_branch,
        aliases=("beam",),
    ),
    Arrangement(
        name="depth_scaled",
        equation="x + 1.4 / sqrt(N) f(LN(x)); final LN",
        source="Hu et al. 2024 (arXiv 2404.06395); huggingface/transformers "
        "models/minicpm3/modeling_minicpm3.py",
        norm_before=NORM,
        final_norm=NORM,
        branch_scale=minicpm_branch,
        aliases=("minicpm",),
    ),
    Arrangement(
        name="convex_unit_gate",
        equation="sqrt(1 - s^2) x + s LN(f(LN(x))), s = sigmoid(w / 0.3), w per feature; final LN",
        source="huggingface/transformers models/muse_spark/modeling_muse_spark.py; its norms differ "
        "by slot, here one for all",
        norm_before=NORM,
        norm_after=NORM,
        final_norm=NORM,
        stream="unit_gate",
    ),
    Arrangement(
        name="affine_residual",
        equation="(x + c) g + (f(LN(x)) + d) h, per feature; final LN",
        source="huggingface/transformers models/zaya/modeling_zaya.py",
        norm_before=NORM,
        final_norm=NORM,
        stream="affine_sum",
    ),
    Arrangement(
        name="residual_scale",
        equation="g x + f(LN(x)), g per feature, 1 at first; final LN",
        source="Shleifer et al. 2021 (arXiv 2110.09456), ResScale, here on both sublayers as in "
        "huggingface/transformers models/doge/modeling_doge.py",
        norm_before=NORM,
        final_norm=NORM,
        stream="skip_gate",
    ),
    Arrangement(
        name="layer_scale",
        equation="x + g f(LN(x)), g per feature, 0.1, 1e-5 or 1e-6 at first by depth; final LN",
        source="Touvron et al. 2021 (arXiv 2103.17239)",
        norm_before=NORM,
        final_norm=NORM,
        stream="vector_gate",
        usual=True,
    ),
    Arrangement(
        name="skip_init",
        equation="x + g f(x), one scalar g per sublayer, 0 at first",
        source="De and Smith 2020 (arXiv 2002.10444)",
        stream="branch_gate",
    ),
    Arrangement(
        name="fixup",
        equation="x + g f(x + c), scalars; out, fc2 0 at first, q, k, v times L^(-1/6), fc1 L^(-1/2)",
        source="Zhang et al. 2019 (arXiv 1901.09321); hongyi-zhang/Fixup fairseq/models/"
        "transformer_zero.py; biases inside a branch are its projections', the head is not zeroed",
        stream="shift_and_scale",
        init=Init(
            gains={
                **dict.fromkeys(("query", "key", "value"), fixup_attention),
                "fc1": fixup_feed_forward,
                **dict.fromkeys(("out", "fc2"), zero),
            }
        ),
    ),
    Arrangement(
        name="highway",
        equation="T f(LN(x)) + (1 - T) x, T = sigmoid(W x + c), c -3 at first; final LN",
        source="Srivastava et al. 2015 (arXiv 1505.00387), here with Pre-LN",
        norm_before=NORM,
        final_norm=NORM,
        stream="carry_gate",
    ),
    Arrangement(
        name="gtrxl",
        equation="gru(x, relu(f(LN(x)))), the update gate's bias 2 towards x at first",
        source=f"{GTRXL}; opendilab/DI-engine ding/torch_utils/network/gtrxl.py",
        norm_before=NORM,
        stream="gru_gate",
    ),
    Arrangement(
        name="gtrxl_input",
        equation="sigmoid(W x) x + relu(f(LN(x)))",
        source=GTRXL,
        norm_before=NORM,
        stream="input_gate",
    ),
    Arrangement(
        name="gtrxl_output",
        equation="x + sigmoid(W x - c) relu(f(LN(x)))",
        source=GTRXL,
        norm_before=NORM,
        stream="output_gate",
    ),
    Arrangement(
        name="gtrxl_sig_tanh",
        equation="x + sigmoid(W y - c) tanh(U y), y = relu(f(LN(x)))",
        source=GTRXL,
        norm_before=NORM,
        stream="sig_tanh_gate",
    ),
    Arrangement(
        name="tanh_zero_gate",
        equation="x + tanh(g) f(LN(x)), one scalar g per sublayer, 0 at first; final LN",
        source="Alayrac et al. 2022 (arXiv 2204.14198), there around grafted layers",
        norm_before=NORM,
        final_norm=NORM,
        stream="tanh_gate",
        aliases=("flamingo",),
    ),
    Arrangement(
        name="laurel_rw",
        equation="g x + h f(LN(x)), scalars, 1 at first; final LN",
        source="Menghani et al. 2024 (arXiv 2411.07501), RW; first values ours",
        norm_before=NORM,
        final_norm=NORM,
        stream="weighted_sum",
    ),
    Arrangement(
        name="laurel_lr",
        equation="x + f(LN(x)) + B A x, of low rank, B 0 at first; final LN",
        source="Menghani et al. 2024 (arXiv 2411.07501), LR",
        norm_before=NORM,
        final_norm=NORM,
        stream="low_rank_skip",
    ),
    Arrangement(
        name="orthogonal_update",
        equation="x + f - (<x, f> / <x, x>) x, f = f(LN(x)); final LN",
        source="Oh et al. 2025 (arXiv 2505.11881); BootsofLagrangian/ortho-residual",
        norm_before=NORM,
        final_norm=NORM,
        stream="orthogonal_sum",
    ),
    Arrangement(
        name="mv_split",
        equation="LN(x + g (f(x) - m f) + h (m f - m x)), m the mean over tokens; g 0.03, h 0 first",
        source="arXiv 2605.06169; erwold/mv-split dit.py (DiTBlock)",
        norm_on_stream=NORM,
        stream="mean_split",
    ),
    Arrangement(
        name="deep_delta",
        equation="x + s k (v - <k, x>), k = f(LN(x)) to unit length, s and v of x; final LN",
        source="Zhang et al. 2026 (arXiv 2601.00417); yifanzhang-pro/deep-delta-learning "
        "model/DDL-vdim1-gpt-mha-rope.py",
        final_norm=NORM,
        stream="delta_rule",
    ),
    Arrangement(
        name="gpas",
        equation="z - silu(g) sg(z), z = x + f(LN(x)), one scalar g per layer, 0 at first; final LN",
        source="arXiv 2506.22049; dandingsky/GPAS peft_pretraining/modeling_llama.py (pre_gpas)",
        norm_before=NORM,
        final_norm=NORM,
        stream="held_back",
    ),
    Arrangement(
        name="adaln_zero",
        equation="x + g f(LN(x) (1 + s) + t), t, s and g linear in silu(c), 0 at first; final LN",
        source="Peebles and Xie 2022 (arXiv 2212.09748); facebookresearch/DiT models.py (DiTBlock)",
        final_norm=DIT_NORM,
        stream="modulated_gate",
    ),
)
