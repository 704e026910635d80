"""Arrangements that put something inside the branches: norms, scales, values of the first layer."""

import jax
import jax.numpy as jnp

from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.place import Place, zero
from resnorm_jax.schemes.slots import NORM, NormSlot
from resnorm_jax.schemes.spec import Arrangement, Changes, Init, Inside
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter, vector

UNIT = NormSlot(norm="l2")
STEP = 0.05  # nGPT's alpha at first: model.py of NVIDIA/ngpt


def shaped_branch(place: Place) -> float:
    """``0.1 sqrt(18 / N)``: O(1 / sqrt(N)) as arXiv 2311.01906 asks, and 0.1 at N = 18 as its code."""
    return 0.1 * (18 / place.layers) ** 0.5


def _step_towards(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    """``x + |a| (f - x)``, ``a`` stored as ``a / (0.05 sqrt(D))``."""
    wide = statistics_dtype(x)
    step = jnp.abs(site.parameters["gate"].astype(wide)) * (STEP * site.width**0.5)
    x32 = x.astype(wide)
    return (x32 + step * (y.astype(wide) - x32)).astype(x.dtype)


def _stored_step(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    return jnp.full(shape, site.width**-0.5, dtype)


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
        name="value_residual",
        equation="x + f(LN(x)), V_l = (V_l + V_1) / 2 in attention; final LN",
        source="Zhou et al. 2024 (arXiv 2410.17897), ResFormer; Zcchill/Value-Residual-Learning "
        "src/modeling/modeling_llama_resformer.py",
        norm_before=NORM,
        final_norm=NORM,
        inside=Inside(value_residual=0.5),
    ),
    Arrangement(
        name="ngpt",
        equation="norm(x + |a| (norm(f(x)) - x)), norm to length 1, a [D] 0.05 at first",
        source="Loshchilov et al. 2024 (arXiv 2410.01131); model.py of NVIDIA/ngpt. Kernels of unit "
        "length: config.optimizer.unit_weights; its scale of logits is the head's",
        embedding_norm=UNIT,
        norm_after=UNIT,
        norm_on_stream=UNIT,
        stream=Stream(
            name="step_towards",
            equation="x + |w| (f - x), w [D] per sublayer, 0.05 at first (the scales a and b are not read)",
            source="Loshchilov et al. 2024 (arXiv 2410.01131); model.py of NVIDIA/ngpt",
            write=_step_towards,
            parameters=(StreamParameter("gate", vector, _stored_step),),
        ),
        inside=Inside(query_key="unit_scaled", mlp_scale=True),
    ),
)
