"""Arrangements that are data alone: norms, constants and orders of sublayers.

A mixture by depth is a function of the place to the fields that differ there, as `mix_ln` below; so
"Post-LN in the last layer only" is ``by_layer=lambda p: post_ln(p) if p.layer == p.layers else {}``.
"""

from resnorm_jax.arrangements.depth_rules import (
    Place,
    count_of_sublayers,
    half,
    inverse_root_of_layer,
    magneto_gain,
    sandwich_sublayers,
    shaped_branch,
    t_fixup_embedding,
    t_fixup_gain,
    zero,
)
from resnorm_jax.arrangements.spec import ROLES, Arrangement, Changes, Init, Inside, NormSlot

NORM = NormSlot()
UNIT = NormSlot(norm="l2")
# The projections that carry a branch's magnitude; queries and keys only choose.
CARRIERS = ("value", "out", "fc1", "fc2")


def post_ln(place: Place) -> Changes:
    """A layer of Post-LN in a row of Pre-LN."""
    return {"norm_before": None, "norm_on_stream": NORM}


def _mix_ln(place: Place) -> Changes:
    return post_ln(place) if place.layer <= place.layers // 4 else {}


def _sandwich_order(place: Place) -> Changes:
    first, second = sandwich_sublayers(place)
    return {"order": ((first,), (second if second != first else f"{second}_1",))}


# HybridNorm's feed-forward: y + f(y), y = LN(x + attention), so the norm is attention's on the stream.
_HYBRID: dict[str, Changes] = {"attention": {"norm_on_stream": NORM}}


def _hybrid_first(place: Place) -> Changes:
    return {"norm_before": NORM, "by_sublayer": {}} if place.layer == 1 else {}


ROWS = (
    Arrangement(
        name="normformer",
        equation="x + LN(f(LN(x))), f attention with a factor for each head; x + f(LN(x)), f with LN "
        "after its activation; final LN",
        source="Shleifer et al. 2021 (arXiv 2110.09456), without its optional scaled residual; "
        "fairseq/modules/transformer_layer.py of fairseq scales heads after the projection",
        norm_before=NORM,
        final_norm=NORM,
        inside=Inside(head_scale=True, mlp_norm=NORM),
        by_sublayer={"attention": {"norm_after": NORM}},
        usual=True,
    ),
    Arrangement(
        name="sub_ln",
        equation="x + f(LN(x)), f with LN before its last projection; Xavier-normal gain "
        "sqrt(log 2N) on v, out, fc1, fc2; final LN",
        source="Wang et al. 2022 (arXiv 2210.06423); microsoft/torchscale architecture/encoder.py",
        norm_before=NORM,
        final_norm=NORM,
        inside=Inside(heads_norm=NORM, mlp_norm=NORM),
        init=Init("normal", dict.fromkeys(CARRIERS, magneto_gain)),
        aliases=("magneto",),
        usual=True,
    ),
    Arrangement(
        name="reordered_ln",
        equation="x + LN(f(x)), LN(q), LN(k) over all heads at once; final LN",
        source="OLMo 2 (arXiv 2501.00656); Olmo2DecoderLayer of huggingface/transformers",
        norm_after=NORM,
        final_norm=NORM,
        inside=Inside(query_key="full"),
        aliases=("olmo2",),
        usual=True,
    ),
    Arrangement(
        name="res_post_norm_cosine",
        equation="x + LN(f(x)), LN's scale 0 at first, attention by t cos(q, k); final LN",
        source="Liu et al. 2021 (arXiv 2111.09883); microsoft/Swin-Transformer",
        norm_after=NormSlot(scale_init=0.0),
        final_norm=NORM,
        inside=Inside(query_key="cosine"),
        aliases=("swin_v2",),
    ),
    Arrangement(
        name="t_fixup",
        equation="x + f(x), no norm; Xavier gain 0.67 N^(-1/4) on v, out, fc1, fc2, embeddings "
        "times (9N)^(-1/4)",
        source="Huang et al. 2020 (ICML 2020, T-Fixup; without norm after arXiv 1901.09321); "
        "layer6ai-labs/T-Fixup fairseq/modules/transformer_layer.py",
        init=Init("uniform", dict.fromkeys(CARRIERS, t_fixup_gain), t_fixup_embedding),
    ),
    Arrangement(
        name="ds_init",
        equation="LN(x + f(x)); Xavier-uniform gain 1 / sqrt(l) on all kernels of layer l",
        source="Zhang et al. 2019 (arXiv 1908.11365); bzhangGo/zero scales the variance, not the "
        "deviation, by 1 / sqrt(l)",
        norm_on_stream=NORM,
        init=Init("uniform", dict.fromkeys(ROLES, inverse_root_of_layer)),
    ),
    Arrangement(
        name="mix_ln",
        equation="LN(x + f(x)) in the first floor(N / 4) layers, then x + f(LN(x)); final LN",
        source="Li et al. 2024 (arXiv 2412.13795); pixeli99/MixLN",
        norm_before=NORM,
        final_norm=NORM,
        by_layer=_mix_ln,
    ),
    Arrangement(
        name="layer_norm_scaling",
        equation="x + f(LN(x) / sqrt(l)), l the layer; final LN",
        source="Sun et al. 2025 (arXiv 2502.05795); lmsdss/LayerNorm-Scaling",
        norm_before=NORM,
        final_norm=NORM,
        read_scale=inverse_root_of_layer,
        usual=True,
    ),
    Arrangement(
        name="hybrid_norm",
        equation="y = LN(x + f(x)), q, k, v normalized by head; y + f(y); final LN",
        source="Zhuo et al. 2025 (arXiv 2503.04598); BryceZhuo/HybridNorm dense_model/olmo/model.py",
        final_norm=NORM,
        inside=Inside(query_key="head", value_norm=NORM),
        by_sublayer=_HYBRID,
    ),
    Arrangement(
        name="hybrid_norm_star",
        equation="as hybrid_norm, but x + f(LN(x)) in the first layer; final LN",
        source="Zhuo et al. 2025 (arXiv 2503.04598); BryceZhuo/HybridNorm README.md",
        final_norm=NORM,
        inside=Inside(query_key="head", value_norm=NORM),
        by_sublayer=_HYBRID,
        by_layer=_hybrid_first,
    ),
    Arrangement(
        name="parallel_one_norm",
        equation="x + f(LN(x)) + g(LN(x)), one LN for both; final LN",
        source="Wang and Komatsuzaki 2021 (GPT-J); PaLM (arXiv 2204.02311); GPTJBlock of "
        "huggingface/transformers",
        norm_before=NORM,
        final_norm=NORM,
        order=(("attention", "feed_forward"),),
        aliases=("gpt_j",),
        usual=True,
    ),
    Arrangement(
        name="parallel_two_norms",
        equation="x + f(LN(x)) + g(LN'(x)); final LN",
        source="Black et al. 2022 (arXiv 2204.06745); GPTNeoXLayer of huggingface/transformers",
        final_norm=NORM,
        inside=Inside(parallel_norm=NORM),
        order=(("attention", "feed_forward"),),
        aliases=("gpt_neox",),
    ),
    Arrangement(
        name="ngpt",
        equation="norm(x + |a| (norm(f(x)) - x)), norm to length 1, a [D] 0.05 at first",
        source="Loshchilov et al. 2024 (arXiv 2410.01131); model.py of NVIDIA/ngpt. Kernels of unit "
        "length: config.optimizer.unit_weights; its scale of logits is the head's",
        embedding_norm=UNIT,
        norm_after=UNIT,
        norm_on_stream=UNIT,
        stream="step_towards",
        inside=Inside(query_key="unit_scaled", mlp_scale=True),
    ),
    Arrangement(
        name="keel",
        equation="LN(a x + f(LN(x))), a the number of sublayers",
        source="Chen and Wei 2026 (arXiv 2601.19895); no public code: all layers are alike here",
        norm_before=NORM,
        norm_on_stream=NORM,
        skip_scale=count_of_sublayers,
        deep=True,
        usual=True,
    ),
    Arrangement(
        name="shaped_attention",
        equation="attention without skip: f(LN(x)) with a I + b softmax - g C; x + c f(LN(x)), "
        "c = 0.1 sqrt(18 / N); final LN",
        source="He and Hofmann 2023 (arXiv 2311.01906), there with fixed values and projections and "
        "learned c; bobby-he/simplified_transformers",
        norm_before=NORM,
        final_norm=NORM,
        init=Init("normal", {"query": zero}),
        inside=Inside(shaped=True),
        by_sublayer={
            "attention": {"skip_scale": zero},
            "feed_forward": {"branch_scale": shaped_branch},
        },
    ),
    Arrangement(
        name="embedding_norm_pre_ln",
        equation="x + f(LN(x)), x LN of the embedding at first; final LN",
        source="BLOOM (arXiv 2211.05100); BloomModel of huggingface/transformers",
        embedding_norm=NORM,
        norm_before=NORM,
        final_norm=NORM,
        aliases=("bloom",),
    ),
    Arrangement(
        name="macaron",
        equation="x + f(LN(x)) / 2, x + attention, LN(x + f(LN(x)) / 2)",
        source="Lu et al. 2019 (arXiv 1906.02762); as in Gulati et al. 2020 (arXiv 2005.08100), "
        "eq. 1, without its convolution",
        norm_before=NORM,
        order=(("feed_forward",), ("attention",), ("feed_forward_1",)),
        by_sublayer={
            "feed_forward": {"branch_scale": half},
            "feed_forward_1": {"branch_scale": half, "norm_on_stream": NORM},
        },
    ),
    Arrangement(
        name="sandwich_order",
        equation="x + f(LN(x)), k more attentions first and k more feed-forwards last, k about 5N/24; "
        "final LN",
        source="Press et al. 2020 (arXiv 1911.03864); ofirpress/sandwich_transformer",
        norm_before=NORM,
        final_norm=NORM,
        by_layer=_sandwich_order,
    ),
    Arrangement(
        name="admin",
        equation="LN(w x + f(x)), w [D] 1 at first, then from a profiling pass",
        source="Liu et al. 2020 (arXiv 2004.08249); LiyuanLucasLiu/Transformer-Clinic; see "
        "resnorm_jax.modules.admin",
        norm_on_stream=NORM,
        stream="vector_skip",
    ),
)
