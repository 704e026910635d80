"""ModernBERT: Pre-LN without biases, rotary positions, windows in two of three layers."""

from collections.abc import Mapping
from typing import Any

from resnorm_jax.errors import UserError
from resnorm_jax.interop.families.shared import (
    FULL,
    SLIDING,
    bases,
    biases,
    rotary_base,
    rotations,
    types_of,
    windows,
)
from resnorm_jax.interop.family import FAMILIES, Family, Setting
from resnorm_jax.interop.layouts import EMBEDDING, JOINED, LINEAR, NORM, Rule

GATED = {"gelu": "geglu", "gelu_pytorch_tanh": "geglu_tanh", "silu": "swiglu"}
HEAD = {"gelu": "gelu", "relu": "relu", "tanh": "tanh"}
LAYER = "layers.{}."
LAST_TOKEN = 50282


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    depth, every = config.get("num_hidden_layers", 22), config.get("global_attn_every_n_layers", 3)
    types = config.get("layer_types") or [SLIDING if n % every else FULL for n in range(depth)]
    norm = "layer" if config.get("norm_bias", False) else "layer_no_bias"
    return {
        "norm": norm,
        "embedding_norm": norm,
        "head_norm": norm,
        "attention_norm_before": f"none*1+{norm}",
        "use_bias": biases(config.get("attention_bias", False), config.get("mlp_bias", False)),
        "window": windows(types, config.get("local_attention", 128) // 2),
        "rotary_base": bases(
            types,
            rotary_base(config, FULL, 160_000.0, "global_rope_theta"),
            rotary_base(config, SLIDING, 10_000.0, "local_rope_theta"),
        ),
    }


def _write(model: Mapping[str, Any]) -> dict[str, Any]:
    types, window = types_of(model)
    biased = next(
        ((a, f) for a in (True, False) for f in (True, False) if biases(a, f) == model["use_bias"]),
        None,
    )
    if biased is None:
        raise UserError(
            f"config.model.use_bias: {model['use_bias']!r}: 'modernbert' models have all, none, "
            f"{biases(True, False)} or {biases(False, True)}"
        )
    rotation = rotations(model, types)
    # Their defaults are ids of their own tokenizer, which a smaller vocabulary does not have.
    named = () if model["vocabulary"] > LAST_TOKEN else ("bos", "cls", "eos", "sep")
    return {
        **{f"{name}_token_id": None for name in named},
        "norm_bias": model["norm"] == "layer",
        "attention_bias": biased[0],
        "mlp_bias": biased[1],
        "layer_types": types,
        "local_attention": 2 * (window or 64),
        "rope_parameters": {FULL: rotation.get(FULL), SLIDING: rotation.get(SLIDING)},
        "tie_word_embeddings": False,
    }


MODERN_BERT = FAMILIES.register(
    Family(
        name="modernbert",
        source="Warner et al. 2024 (arXiv 2412.13663); ModernBertForSequenceClassification",
        architecture="ModernBertForSequenceClassification",
        prefix="model.",
        settings=(
            Setting("hidden_size", "width", 768),
            Setting("num_hidden_layers", "depth", 22),
            Setting("num_attention_heads", "heads", 12),
            Setting("intermediate_size", "mlp_width", 1152),
            Setting("hidden_activation", "activation", "gelu", GATED),
            Setting("norm_eps", "norm_epsilon", 1e-5),
            Setting("vocab_size", "vocabulary", 50368),
            Setting("max_position_embeddings", "max_length", 8192),
            Setting("classifier_pooling", "pooling", "cls", {"cls": "first", "mean": "mean"}),
            Setting("classifier_activation", "head_activation", "gelu", HEAD),
            Setting("classifier_bias", "head_hidden_bias", False),
            Setting("pad_token_id", "padding", 50283),
        ),
        fixed={"arrangement": "pre_ln", "positions": "rotary"},
        rules=(
            Rule("embeddings.tok_embeddings", "front_end/embed", EMBEDDING),
            Rule("embeddings.norm", "encoder/embedding_norm", NORM),
            Rule(f"{LAYER}attn_norm", "attention/norm_before", NORM),
            Rule(
                f"{LAYER}attn.Wqkv",
                tuple(f"attention/branch/{role}" for role in ("query", "key", "value")),
                LINEAR,
            ),
            Rule(f"{LAYER}attn.Wo", "attention/branch/out", JOINED),
            Rule(f"{LAYER}mlp_norm", "feed_forward/norm_before", NORM),
            Rule(f"{LAYER}mlp.Wi", ("feed_forward/branch/fc1", "feed_forward/branch/gate"), LINEAR),
            Rule(f"{LAYER}mlp.Wo", "feed_forward/branch/fc2", LINEAR),
            Rule("final_norm", "encoder/final_norm", NORM),
            Rule("head.dense", "head_hidden", LINEAR, outside=True),
            Rule("head.norm", "head_norm", NORM, outside=True),
            Rule("classifier", "head", LINEAR, outside=True),
        ),
        read=_read,
        write=_write,
        unread=(r"decoder\..*",),
    )
)
