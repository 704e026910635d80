"""DeBERTa-v2 and v3: BERT's layers with disentangled attention to relative positions."""

from collections.abc import Mapping
from typing import Any

from resnorm_jax.interop.families.bert import EMBEDDINGS, POST_LN, SIZES, UNREAD
from resnorm_jax.interop.families.shared import need
from resnorm_jax.interop.family import FAMILIES, Family, Setting
from resnorm_jax.interop.layouts import EMBEDDING, JOINED, LINEAR, NORM, Rule

NAME, LAYER = "deberta-v2", "encoder.layer.{}."
CHANGED = ("norm_epsilon", "vocabulary", "token_types")
# What the row `disentangled` is, in their words, with the defaults of their class.
BOTH = (["c2p", "p2c"], ["p2c", "c2p"], "c2p|p2c", "p2c|c2p")


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    width = config.get("hidden_size", 1536)
    need(
        config, NAME,
        relative_attention=(False, (True,)),
        pos_att_type=(None, BOTH),
        share_att_key=(False, (True,)),
        norm_rel_ebd=("none", ("layer_norm",)),
        position_biased_input=(True, (False,)),
        conv_kernel_size=(0, (0,)),
        embedding_size=(width, (width,)),
        pooler_hidden_size=(width, (width,)),
    )  # fmt: skip
    far = config.get("max_relative_positions", -1)
    return {
        "relative_positions": config.get("max_position_embeddings", 512) if far < 1 else far,
        "token_types": config.get("type_vocab_size", 0) or None,
    }


def _write(model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": model["width"],
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "conv_kernel_size": 0,
        "pooler_hidden_size": model["width"],
        "max_relative_positions": model["relative_positions"],
        "type_vocab_size": model["token_types"] or 0,
    }


DEBERTA = FAMILIES.register(
    Family(
        name=NAME,
        source="He et al. 2020 and 2021 (arXiv 2006.03654, 2111.09543); "
        "DebertaV2ForSequenceClassification",
        architecture="DebertaV2ForSequenceClassification",
        prefix="deberta.",
        settings=(
            *(s for s in SIZES if s.ours not in CHANGED),
            Setting("layer_norm_eps", "norm_epsilon", 1e-7),
            Setting("vocab_size", "vocabulary", 128100),
            Setting("position_buckets", "relative_buckets", -1),
            Setting(
                "pooler_hidden_act", "head_activation", "gelu", {"gelu": "gelu", "tanh": "tanh"}
            ),
        ),
        fixed={**POST_LN, "positions": "none", "relative": "disentangled"},
        rules=(
            *EMBEDDINGS,
            *(
                Rule(f"{LAYER}attention.self.{role}_proj", f"attention/branch/{role}", LINEAR)
                for role in ("query", "key", "value")
            ),
            Rule(f"{LAYER}attention.output.dense", "attention/branch/out", JOINED),
            Rule(f"{LAYER}attention.output.LayerNorm", "attention/norm_on_stream", NORM),
            Rule(f"{LAYER}intermediate.dense", "feed_forward/branch/fc1", LINEAR),
            Rule(f"{LAYER}output.dense", "feed_forward/branch/fc2", LINEAR),
            Rule(f"{LAYER}output.LayerNorm", "feed_forward/norm_on_stream", NORM),
            Rule("encoder.rel_embeddings", "encoder/relative", EMBEDDING),
            Rule("encoder.LayerNorm", "encoder/relative_norm", NORM),
            Rule("pooler.dense", "head_hidden", LINEAR, outside=True),
            Rule("classifier", "head", LINEAR, outside=True),
        ),
        read=_read,
        write=_write,
        separator="[SEP]",
        unread=(*UNREAD, r"lm_predictions\..*", r"mask_predictions\..*", r"legacy.*"),
    )
)
