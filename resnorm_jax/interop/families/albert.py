"""ALBERT: BERT whose layers share their parameters, with narrow embeddings."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resnorm_jax.errors import UserError
from resnorm_jax.interop.families.bert import BERT, ELECTRA, SIZES, UNREAD
from resnorm_jax.interop.family import FAMILIES, Setting
from resnorm_jax.interop.layouts import JOINED, LINEAR, NORM, Rule

# Layers are numbered by their group, as ours that have parameters of their own.
LAYER = "encoder.albert_layer_groups.{}.albert_layers.0."
DEFAULTS = {
    "width": 4096, "heads": 64, "mlp_width": 16_384, "activation": "gelu_new", "vocabulary": 30_000,
}  # fmt: skip


def _groups(config: Mapping[str, Any]) -> dict[str, Any]:
    groups, depth = config.get("num_hidden_groups", 1), config.get("num_hidden_layers", 12)
    if depth % groups:
        raise UserError(
            f"config.json: num_hidden_groups is {groups} of num_hidden_layers {depth}; of 'albert' "
            "models only those with groups of one size are read"
        )
    return {"layer_groups": groups}


ALBERT = FAMILIES.register(
    replace(
        BERT,
        name="albert",
        source="Lan et al. 2019 (arXiv 1909.11942); AlbertForSequenceClassification",
        architecture="AlbertForSequenceClassification",
        prefix="albert.",
        settings=(
            *(replace(s, default=DEFAULTS.get(s.ours, s.default)) for s in SIZES),
            Setting("embedding_size", "embedding_width", 128),
        ),
        required={"inner_group_num": 1},
        rules=(
            *(r for r in ELECTRA.rules if r.paths[0].startswith(("front_end", "positions"))),
            Rule("embeddings.LayerNorm", "projection/embedding_norm", NORM),
            Rule("encoder.embedding_hidden_mapping_in", "projection/project", LINEAR),
            *(
                Rule(f"{LAYER}attention.{role}", f"attention/branch/{role}", LINEAR)
                for role in ("query", "key", "value")
            ),
            Rule(f"{LAYER}attention.dense", "attention/branch/out", JOINED),
            Rule(f"{LAYER}attention.LayerNorm", "attention/norm_on_stream", NORM),
            Rule(f"{LAYER}ffn", "feed_forward/branch/fc1", LINEAR),
            Rule(f"{LAYER}ffn_output", "feed_forward/branch/fc2", LINEAR),
            Rule(f"{LAYER}full_layer_layer_norm", "feed_forward/norm_on_stream", NORM),
            Rule("pooler", "head_hidden", LINEAR),
            Rule("classifier", "head", LINEAR, outside=True),
        ),
        read=_groups,
        write=lambda model: {
            "num_hidden_layers": model["depth"],
            "num_hidden_groups": model["layer_groups"] or model["depth"],
        },
        unread=(*UNREAD, r"(predictions|sop_classifier)\..*"),
    )
)
