"""Arrangements that look at all earlier layers, and those that change over training."""

from resnorm_jax.arrangements.spec import Arrangement, Inside, NormSlot

NORM = NormSlot()

ROWS = (
    Arrangement(
        name="denseformer",
        equation="x_l = x + f(LN(x)), x = sum_j a_lj x_j after each layer; final LN",
        source="Pagliardini et al. 2024 (arXiv 2402.02622), section 3; epfml/DenseFormer",
        norm_before=NORM,
        final_norm=NORM,
        stream="depth_average",
    ),
    Arrangement(
        name="attention_residuals",
        equation="v_s = f(LN(h_s)), h_s = sum_i softmax_i(w_s . RMS(v_i)) v_i; final LN",
        source="Kimi Team 2026 (arXiv 2603.15031), eq. 2-4",
        norm_before=NORM,
        final_norm=NORM,
        stream="depth_attention",
    ),
    Arrangement(
        name="block_attention_residuals",
        equation="b_n += f(LN(h_s)), h_s = sum_n softmax_n(w_s . RMS(b_n)) b_n; final LN",
        source="Kimi Team 2026 (arXiv 2603.15031), eq. 5-6 and figure 2",
        norm_before=NORM,
        final_norm=NORM,
        stream="depth_attention_blocks",
    ),
    Arrangement(
        name="value_residual",
        equation="x + f(LN(x)), V_l = (V_l + V_1) / 2 in attention; final LN",
        source="Zhou et al. 2024 (arXiv 2410.17897), ResFormer; Zcchill/Value-Residual-Learning "
        "src/modeling/modeling_llama_resformer.py",
        norm_before=NORM,
        final_norm=NORM,
        inside=Inside(value_residual=0.5),
    ),
    Arrangement(
        name="prores",
        equation="x + min(t / (1000 l), 1) f(LN(x)) at update t in layer l; final LN",
        source="Chen et al. 2026 (arXiv 2603.05369), schedule linear; dandingsky/ProRes",
        norm_before=NORM,
        final_norm=NORM,
        stream="progressive",
    ),
)
