"""BERT and the encoders that are built like it: Post-LN, with a norm on the embeddings."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resnorm_jax.interop.family import ACTIVATION_NAMES, FAMILIES, Family, Setting
from resnorm_jax.interop.layouts import EMBEDDING, JOINED, LINEAR, NORM, Rule

SIZES = (
    Setting("hidden_size", "width", 768),
    Setting("num_hidden_layers", "depth", 12),
    Setting("num_attention_heads", "heads", 12),
    Setting("intermediate_size", "mlp_width", 3072),
    Setting("hidden_act", "activation", "gelu", ACTIVATION_NAMES),
    Setting("layer_norm_eps", "norm_epsilon", 1e-12),
    Setting("vocab_size", "vocabulary", 30522),
    Setting("type_vocab_size", "token_types", 2),
    Setting("max_position_embeddings", "max_length", 512),
)
POST_LN = {
    "arrangement": "post_ln",
    "norm": "layer",
    "embedding_norm": "layer",
    "positions": "learned",
    "pooling": "first",
}
LAYER = "encoder.layer.{}."
LAYERS = (
    *(
        Rule(f"{LAYER}attention.self.{role}", f"attention/branch/{role}", LINEAR)
        for role in ("query", "key", "value")
    ),
    Rule(f"{LAYER}attention.output.dense", "attention/branch/out", JOINED),
    Rule(f"{LAYER}attention.output.LayerNorm", "attention/norm_on_stream", NORM),
    Rule(f"{LAYER}intermediate.dense", "feed_forward/branch/fc1", LINEAR),
    Rule(f"{LAYER}output.dense", "feed_forward/branch/fc2", LINEAR),
    Rule(f"{LAYER}output.LayerNorm", "feed_forward/norm_on_stream", NORM),
)
EMBEDDINGS = (
    Rule("embeddings.word_embeddings", "front_end/embed", EMBEDDING),
    Rule("embeddings.position_embeddings", "positions", EMBEDDING),
    Rule("embeddings.token_type_embeddings", "front_end/types", EMBEDDING),
    Rule("embeddings.LayerNorm", "encoder/embedding_norm", NORM),
)
# Of other heads of a checkpoint, and positions' numbers, which old files hold.
UNREAD = (r"embeddings\.position_ids", r"cls\..*", r"lm_head\..*", r"qa_outputs\..*")
# One output layer that ElectraForSequenceClassification and RoBERTa's name alike.
DENSE_HEAD = (
    Rule("classifier.dense", "head_hidden", LINEAR, outside=True),
    Rule("classifier.out_proj", "head", LINEAR, outside=True),
)

BERT = FAMILIES.register(
    Family(
        name="bert",
        source="Devlin et al. 2018 (arXiv 1810.04805); BertForSequenceClassification",
        architecture="BertForSequenceClassification",
        prefix="bert.",
        settings=SIZES,
        fixed={**POST_LN, "head_activation": "tanh"},
        required={"position_embedding_type": "absolute", "is_decoder": False},
        rules=(
            *EMBEDDINGS,
            *LAYERS,
            Rule("pooler.dense", "head_hidden", LINEAR),
            Rule("classifier", "head", LINEAR, outside=True),
        ),
        separator="[SEP]",
        unread=UNREAD,
    )
)


def _after_padding(config: Mapping[str, Any]) -> dict[str, Any]:
    """Positions are counted from the id of padding on: RobertaEmbeddings."""
    offset = (1 if config.get("pad_token_id") is None else config["pad_token_id"]) + 1
    most = config.get("max_position_embeddings", 512)
    return {"position_offset": offset, "max_length": most - offset}


def _with_padding(model: Mapping[str, Any]) -> dict[str, Any]:
    offset = model["position_offset"]
    return {
        "pad_token_id": offset - 1,
        "max_position_embeddings": model["max_length"] + offset,
    }


ROBERTA = FAMILIES.register(
    replace(
        BERT,
        name="roberta",
        source="Liu et al. 2019 (arXiv 1907.11692); RobertaForSequenceClassification",
        architecture="RobertaForSequenceClassification",
        prefix="roberta.",
        settings=SIZES[:-1],
        rules=(*EMBEDDINGS, *LAYERS, *DENSE_HEAD),
        read=_after_padding,
        write=_with_padding,
        separator=None,  # its tokenizer gives all tokens type 0
        unread=(*UNREAD, r"pooler\..*"),
    )
)
XLM_ROBERTA = FAMILIES.register(
    replace(
        ROBERTA,
        name="xlm-roberta",
        source="Conneau et al. 2019 (arXiv 1911.02116); XLMRobertaForSequenceClassification",
        architecture="XLMRobertaForSequenceClassification",
    )
)
MPNET = FAMILIES.register(
    replace(
        ROBERTA,
        name="mpnet",
        source="Song et al. 2020 (arXiv 2004.09297); MPNetForSequenceClassification",
        architecture="MPNetForSequenceClassification",
        prefix="mpnet.",
        settings=tuple(s for s in SIZES if s.ours not in ("token_types", "max_length")),
        # Its positions are counted from the row after that of padding, whose id is always 1.
        fixed={**ROBERTA.fixed, "relative": "bias", "position_offset": 2},
        required={**ROBERTA.required, "relative_attention_num_buckets": 32},
        rules=(
            *(rule for rule in EMBEDDINGS if rule.ours != "front_end/types"),
            *(
                Rule(f"{LAYER}attention.attn.{role[0]}", f"attention/branch/{role}", LINEAR)
                for role in ("query", "key", "value")
            ),
            Rule(f"{LAYER}attention.attn.o", "attention/branch/out", JOINED),
            Rule(f"{LAYER}attention.LayerNorm", "attention/norm_on_stream", NORM),
            *(rule for rule in LAYERS if "attention" not in rule.theirs),
            Rule("encoder.relative_attention_bias", "encoder/relative", EMBEDDING),
            *DENSE_HEAD,
        ),
        read=lambda config: {"max_length": config.get("max_position_embeddings", 512) - 2},
        write=lambda model: {"max_position_embeddings": model["max_length"] + 2},
    )
)
_DISTILBERT = "transformer.layer.{}."
DISTILBERT = FAMILIES.register(
    Family(
        name="distilbert",
        source="Sanh et al. 2019 (arXiv 1910.01108); DistilBertForSequenceClassification",
        architecture="DistilBertForSequenceClassification",
        prefix="distilbert.",
        settings=(
            Setting("dim", "width", 768),
            Setting("n_layers", "depth", 6),
            Setting("n_heads", "heads", 12),
            Setting("hidden_dim", "mlp_width", 3072),
            Setting("activation", "activation", "gelu", ACTIVATION_NAMES),
            Setting("vocab_size", "vocabulary", 30522),
            Setting("max_position_embeddings", "max_length", 512),
        ),
        fixed={**POST_LN, "norm_epsilon": 1e-12, "head_activation": "relu"},
        rules=(
            *(rule for rule in EMBEDDINGS if rule.ours != "front_end/types"),
            *(
                Rule(f"{_DISTILBERT}attention.{role[0]}_lin", f"attention/branch/{role}", LINEAR)
                for role in ("query", "key", "value")
            ),
            Rule(f"{_DISTILBERT}attention.out_lin", "attention/branch/out", JOINED),
            Rule(f"{_DISTILBERT}sa_layer_norm", "attention/norm_on_stream", NORM),
            Rule(f"{_DISTILBERT}ffn.lin1", "feed_forward/branch/fc1", LINEAR),
            Rule(f"{_DISTILBERT}ffn.lin2", "feed_forward/branch/fc2", LINEAR),
            Rule(f"{_DISTILBERT}output_layer_norm", "feed_forward/norm_on_stream", NORM),
            Rule("pre_classifier", "head_hidden", LINEAR, outside=True),
            Rule("classifier", "head", LINEAR, outside=True),
        ),
        unread=(*UNREAD, r"vocab_.*"),
    )
)


def _embedding_width(config: Mapping[str, Any]) -> dict[str, Any]:
    width, inner = config.get("hidden_size", 256), config.get("embedding_size", 128)
    return {"embedding_width": None if inner == width else inner}


ELECTRA = FAMILIES.register(
    replace(
        BERT,
        name="electra",
        source="Clark et al. 2020 (arXiv 2003.10555); ElectraForSequenceClassification",
        architecture="ElectraForSequenceClassification",
        prefix="electra.",
        settings=(
            Setting("hidden_size", "width", 256),
            Setting("num_attention_heads", "heads", 4),
            Setting("intermediate_size", "mlp_width", 1024),
            *(s for s in SIZES if s.ours not in ("width", "heads", "mlp_width")),
        ),
        fixed={**POST_LN, "head_activation": "gelu"},
        rules=(
            *EMBEDDINGS,
            Rule("embeddings.LayerNorm", "projection/embedding_norm", NORM),
            Rule("embeddings_project", "projection/project", LINEAR),
            *LAYERS,
            *DENSE_HEAD,
        ),
        read=_embedding_width,
        write=lambda model: {"embedding_size": model["embedding_width"] or model["width"]},
        unread=(*UNREAD, r"(discriminator|generator)_.*"),
    )
)
