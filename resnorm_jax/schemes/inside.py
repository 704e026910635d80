"""Arrangements that put something inside the branches: norms, scales, values of the first layer."""

import jax
import jax.numpy as jnp

from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.place import Place, zero
from resnorm_jax.schemes.slots import NORM, NormSlot
from resnorm_jax.schemes.spec import (
    ATTENTION,
    FEED_FORWARD,
    Arrangement,
    Branch,
    Changes,
    Init,
    Inside,
)
from resnorm_jax.schemes.stream import Site, Stream, StreamParameter, vector

UNIT = NormSlot(norm="l2")
STEP = 0.05  # |w| at first: attn_alpha_init_value of model.py of NVIDIA/ngpt


def shaped_branch(place: Place) -> float:
    """``0.1 sqrt(18 / N)``: O(1 / sqrt(N)) as arXiv 2311.01906 asks, and 0.1 at N = 18 as its code."""
    return 0.1 * (18 / place.layers) ** 0.5


def _step_towards(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    """``x + |w| (f - x)``, ``|w| = 0.05 sqrt(D) |gate|``."""
    wide = statistics_dtype(x)
    step = jnp.abs(site.parameters["gate"].astype(wide)) * (STEP * site.width**0.5)
    x32 = x.astype(wide)
    return (x32 + step * (y.astype(wide) - x32)).astype(x.dtype)


def _stored_step(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """``1 / sqrt(D)``."""
    return jnp.full(shape, site.width**-0.5, dtype)


# HybridNorm's feed-forward: y + f(y), y = LN(x + attention), so the norm is attention's on the stream.
_HYBRID: dict[Branch, Changes] = {ATTENTION: {"norm_on_stream": NORM}}


def _hybrid_first(place: Place) -> Changes:
    return {"norm_before": NORM, "by_sublayer": {}} if place.layer == 1 else {}


ROWS = (
    Arrangement(
        name="normformer",
        equation="x + LN'(f(LN(x))), f attention whose heads are each multiplied by a learned "
        "number, 1 at first, before they are joined and projected; x + g(LN(x)), g feed-forward "
        "with an LN between its activation (and gate) and its last projection; final LN",
        source="Shleifer et al. 2021 (arXiv 2110.09456), without its optional scaled residual; "
        "fairseq/modules/transformer_layer.py of fairseq scales heads after the projection",
        norm_before=NORM,
        final_norm=NORM,
        inside=Inside(head_scale=True, mlp_norm=NORM),
        by_sublayer={ATTENTION: {"norm_after": NORM}},
        usual=True,
    ),
    Arrangement(
        name="reordered_ln",
        equation="x + LN(f(x)), in attention LN'(q) and LN''(k) over all D features at once, "
        "before heads are taken; final LN",
        source="OLMo 2 (arXiv 2501.00656); Olmo2DecoderLayer of huggingface/transformers",
        used_by="OLMo 2, OLMo 3",
        norm_after=NORM,
        final_norm=NORM,
        inside=Inside(query_key="full"),
        aliases=("olmo2",),
        usual=True,
    ),
    Arrangement(
        name="res_post_norm_cosine",
        equation="x + LN(f(x)), LN's scale and bias 0 at first; attention softmax(exp(min(t, log "
        "100)) cos(q, k)) v, one t a head, log 10 at first; final LN, its scale 1",
        source="Liu et al. 2021 (arXiv 2111.09883), section 3.3; microsoft/Swin-Transformer "
        "models/swin_transformer_v2.py. Left out: the position bias of the logits",
        used_by="Swin v2",
        norm_after=NormSlot(scale_init=0.0),
        final_norm=NORM,
        inside=Inside(query_key="cosine"),
        aliases=("swin_v2",),
    ),
    Arrangement(
        name="hybrid_norm",
        equation="y = LN(x + f(x)), f attention whose q, k, v each go through an LN over the K "
        "features of each head; y + g(y), g feed-forward, without a norm; final LN",
        source="Zhuo et al. 2025 (arXiv 2503.04598); BryceZhuo/HybridNorm "
        "dense_model/olmo/model.py",
        final_norm=NORM,
        inside=Inside(query_key="head", value_norm=NORM),
        by_sublayer=_HYBRID,
    ),
    Arrangement(
        name="hybrid_norm_star",
        equation="x + f(LN(x)) twice in layer 1; later y = LN(x + f(x)), then y + g(y), f "
        "attention, g feed-forward; in all layers q, k, v each go through an LN over the K "
        "features of each head; final LN",
        source="Zhuo et al. 2025 (arXiv 2503.04598); BryceZhuo/HybridNorm README.md",
        final_norm=NORM,
        inside=Inside(query_key="head", value_norm=NORM),
        by_sublayer=_HYBRID,
        by_layer=_hybrid_first,
    ),
    Arrangement(
        name="shaped_attention",
        equation="x = f(LN(x)), attention without a skip, its matrix a I + b softmax(q k / "
        "sqrt(K)) - g C, C with equal weights for all keys that a query may look at, a, b, g one "
        "number a head, 1 at first, query kernels 0 at first (then softmax = C); x + 0.1 sqrt(18 "
        "/ N) h(LN(x)), h feed-forward; Xavier-normal kernels; final LN",
        source="He and Hofmann 2023 (arXiv 2311.01906), there with fixed values and projections "
        "and a learned factor of h; bobby-he/simplified_transformers. Cross-attention keeps its "
        "softmax alone",
        norm_before=NORM,
        final_norm=NORM,
        init=Init("normal", {"query": zero}),
        inside=Inside(shaped=True),
        by_sublayer={
            ATTENTION: {"skip_scale": zero},
            FEED_FORWARD: {"branch_scale": shaped_branch},
        },
    ),
    Arrangement(
        name="value_residual",
        equation="x + f(LN(x)), self-attention in layer l with values (V_l + V_1) / 2, V_1 the "
        "values of layer 1 as they were projected there; final LN",
        source="Zhou et al. 2024 (arXiv 2410.17897), ResFormer; Zcchill/Value-Residual-Learning "
        "src/modeling/modeling_llama_resformer.py",
        norm_before=NORM,
        final_norm=NORM,
        inside=Inside(value_residual=0.5),
    ),
    Arrangement(
        name="ngpt",
        equation="n(x + |w| (n(f(x)) - x)), n(z) = z / sqrt(sum(z^2) + 1e-12), x = n(embedding) "
        "at first, |w| = 0.05 sqrt(D) |gate|, gate [D] a sublayer, stored as 1 / sqrt(D) at first "
        "(|w| = 0.05); attention has logits sqrt(K) (c n(q)) . (c n(k)), n head by head, c [H, K] "
        "1 at first; feed-forward is W2 act(sqrt(D) u (W1 x + b1)) + b2, with a gate W2 "
        "(act(sqrt(D) u (W1 x + b1)) v (Wg x + bg)) + b2, u and v 1 at first; no final norm",
        source="Loshchilov et al. 2024 (arXiv 2410.01131), eq. 10-11, 15-16, 20-21; model.py of "
        "NVIDIA/ngpt, where n has no epsilon, gate is stored as 1 / sqrt(1024) whatever D, v is "
        "times sqrt(D) like u, and c is stored as 1 / sqrt(1024) and read times sqrt(1024), so "
        "that Adam moves it 32 times as fast as ours. Kernels of unit length are "
        "config.optimizer.unit_weights; its learned scale of the logits is left to the head",
        embedding_norm=UNIT,
        norm_after=UNIT,
        norm_on_stream=UNIT,
        stream=Stream(
            name="step_towards",
            equation="x + |w| (f - x), |w| = 0.05 sqrt(D) |gate|, gate [D] a sublayer, 1 / "
            "sqrt(D) at first, so that |w| is 0.05 (the scales a and b are not read)",
            source="Loshchilov et al. 2024 (arXiv 2410.01131); model.py of NVIDIA/ngpt",
            write=_step_towards,
            parameters=(StreamParameter("gate", vector, _stored_step),),
        ),
        inside=Inside(query_key="unit_scaled", mlp_scale=True),
    ),
)
