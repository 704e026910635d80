"""Decoders as classifiers: causal, rotary, grouped heads, RMS norms; the last token is pooled."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resnorm_jax.errors import UserError
from resnorm_jax.interop.families.shared import (
    FULL,
    SLIDING,
    bases,
    need,
    rotary_base,
    rotations,
    types_of,
    windows,
)
from resnorm_jax.interop.family import FAMILIES, Family, Setting
from resnorm_jax.interop.layouts import EMBEDDING, JOINED, LINEAR, NORM, Rule

LAYER = "layers.{}."
GATED = {"silu": "swiglu", "gelu_pytorch_tanh": "geglu_tanh", "gelu": "geglu"}
ROLES = ("query", "key", "value")
SIZES = (
    Setting("hidden_size", "width"),
    Setting("num_hidden_layers", "depth", 32),
    Setting("num_attention_heads", "heads", 32),
    Setting("num_key_value_heads", "kv_heads"),
    Setting("intermediate_size", "mlp_width"),
    Setting("hidden_act", "activation", "silu", GATED),
    Setting("rms_norm_eps", "norm_epsilon", 1e-6),
    Setting("vocab_size", "vocabulary"),
    Setting("max_position_embeddings", "max_length", 32768),
    Setting("pad_token_id", "padding"),
)
FIXED = {
    "norm": "rms", "positions": "rotary", "causal": True, "use_bias": "none", "pooling": "last",
    "head_bias": False,
}  # fmt: skip
RULES = (
    Rule("embed_tokens", "front_end/embed", EMBEDDING),
    *(Rule(f"{LAYER}self_attn.{r[0]}_proj", f"attention/branch/{r}", LINEAR) for r in ROLES),
    Rule(f"{LAYER}self_attn.o_proj", "attention/branch/out", JOINED),
    Rule(f"{LAYER}self_attn.q_norm", "attention/branch/query_norm", NORM),
    Rule(f"{LAYER}self_attn.k_norm", "attention/branch/key_norm", NORM),
    Rule(f"{LAYER}mlp.gate_proj", "feed_forward/branch/fc1", LINEAR),
    Rule(f"{LAYER}mlp.up_proj", "feed_forward/branch/gate", LINEAR),
    Rule(f"{LAYER}mlp.down_proj", "feed_forward/branch/fc2", LINEAR),
    Rule("norm", "encoder/final_norm", NORM),
    Rule("score", "head", LINEAR, outside=True),
)


def _alike(config: Mapping[str, Any]) -> dict[str, Any]:
    """One rotary base for all layers, and no biases."""
    need(config, str(config.get("model_type")), attention_bias=(False, (False,)))
    return {"rotary_base": f"{rotary_base(config):.17g}"}


def _one_base(model: Mapping[str, Any]) -> dict[str, Any]:
    rotation = rotations(model, [FULL] * model["depth"])[FULL]
    return {"rope_parameters": rotation, "attention_bias": False, "tie_word_embeddings": False}


def _causal_windows(config: Mapping[str, Any]) -> dict[str, Any]:
    """Their window counts the position itself, and ours those beside it."""
    window = config.get("sliding_window") if config.get("use_sliding_window", False) else None
    depth, first = config.get("num_hidden_layers", 32), config.get("max_window_layers", 28)
    types = config.get("layer_types") or [
        SLIDING if window is not None and n >= first else FULL for n in range(depth)
    ]
    seen = windows(types, None if window is None else window - 1)
    return {**_alike(config), "window": seen}


def _their_windows(model: Mapping[str, Any]) -> dict[str, Any]:
    types, window = types_of(model)
    return {
        **_one_base(model),
        "layer_types": types,
        "use_sliding_window": window is not None,
        "sliding_window": None if window is None else window + 1,
    }


QWEN3 = FAMILIES.register(
    Family(
        name="qwen3",
        source="Qwen team 2025 (arXiv 2505.09388); Qwen3ForSequenceClassification",
        architecture="Qwen3ForSequenceClassification",
        prefix="model.",
        settings=(*SIZES, Setting("head_dim", "head_width", 128)),
        fixed={**FIXED, "arrangement": "pre_ln", "query_key": "head"},
        rules=(
            *RULES,
            Rule(f"{LAYER}input_layernorm", "attention/norm_before", NORM),
            Rule(f"{LAYER}post_attention_layernorm", "feed_forward/norm_before", NORM),
        ),
        read=_causal_windows,
        write=_their_windows,
        unread=(r"lm_head\..*", r".*rotary_emb\.inv_freq"),
    )
)
OLMO2 = FAMILIES.register(
    replace(
        QWEN3,
        name="olmo2",
        source="OLMo team 2025 (arXiv 2501.00656); Olmo2ForSequenceClassification",
        architecture="Olmo2ForSequenceClassification",
        settings=SIZES,
        fixed={**FIXED, "arrangement": "reordered_ln"},
        rules=(
            *RULES,
            Rule(f"{LAYER}post_attention_layernorm", "attention/norm_after", NORM),
            Rule(f"{LAYER}post_feedforward_layernorm", "feed_forward/norm_after", NORM),
        ),
        read=_alike,
        write=_one_base,
    )
)


def _gemma(config: Mapping[str, Any]) -> dict[str, Any]:
    need(
        config, "gemma3_text",
        attention_bias=(False, (False,)),
        attn_logit_softcapping=(None, (None,)),
    )  # fmt: skip
    depth, every = config.get("num_hidden_layers", 26), config.get("sliding_window_pattern", 6)
    types = config.get("layer_types") or [
        SLIDING if (n + 1) % every else FULL for n in range(depth)
    ]
    window, both = config.get("sliding_window", 4096), config.get("use_bidirectional_attention")
    return {
        "causal": not both,
        # Theirs is of both sides together, or of the position itself and those before it.
        "window": windows(types, window // 2 if both else window - 1),
        "rotary_base": bases(
            types,
            rotary_base(config, FULL, 1e6),
            rotary_base({**config, "rope_scaling": None}, SLIDING, 1e4, "rope_local_base_freq"),
        ),
        "attention_scale": config.get("query_pre_attn_scalar", 256) ** -0.5,
        "embedding_multiplier": config.get("hidden_size", 2304) ** 0.5,
    }


def _to_gemma(model: Mapping[str, Any]) -> dict[str, Any]:
    types, window = types_of(model)
    rotation = rotations(model, types)
    if model["embedding_multiplier"] != model["width"] ** 0.5:
        raise UserError(
            f"config.model.embedding_multiplier: {model['embedding_multiplier']}; 'gemma3_text' models "
            f"have the root of the width, {model['width'] ** 0.5:.17g}"
        )
    window = 256 if window is None else window
    scale = model["attention_scale"] or (model["head_width"] or 1) ** -0.5
    return {
        "use_bidirectional_attention": not model["causal"],
        "sliding_window": window + 1 if model["causal"] else 2 * window,
        "layer_types": types,
        "rope_parameters": {FULL: rotation.get(FULL), SLIDING: rotation.get(SLIDING)},
        "query_pre_attn_scalar": round(scale**-2),
        "attention_bias": False,
        "tie_word_embeddings": False,
    }


GEMMA3 = FAMILIES.register(
    replace(
        QWEN3,
        name="gemma3_text",
        source="Gemma team 2025 (arXiv 2503.19786); Gemma3TextForSequenceClassification",
        architecture="Gemma3TextForSequenceClassification",
        settings=(
            *(s for s in SIZES if s.ours != "activation"),
            Setting("hidden_activation", "activation", "gelu_pytorch_tanh", GATED),
            Setting("head_dim", "head_width", 256),
        ),
        fixed={
            **{name: value for name, value in FIXED.items() if name != "causal"},
            "arrangement": "sandwich_ln",
            "norm": "rms_zero_centred",
            "query_key": "head",
        },
        rules=(
            *RULES,
            Rule(f"{LAYER}input_layernorm", "attention/norm_before", NORM),
            Rule(f"{LAYER}post_attention_layernorm", "attention/norm_after", NORM),
            Rule(f"{LAYER}pre_feedforward_layernorm", "feed_forward/norm_before", NORM),
            Rule(f"{LAYER}post_feedforward_layernorm", "feed_forward/norm_after", NORM),
        ),
        read=_gemma,
        write=_to_gemma,
    )
)
