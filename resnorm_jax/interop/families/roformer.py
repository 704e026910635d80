"""RoFormer: BERT's layers with rotary positions, whose pairs of features stand side by side."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.interop.families.bert import ELECTRA, POST_LN, SIZES, UNREAD
from resnorm_jax.interop.families.shared import need
from resnorm_jax.interop.family import ACTIVATION_NAMES, FAMILIES
from resnorm_jax.interop.layouts import PAIRED
from resnorm_jax.modules.positions import sinusoids

NAME, PAIRS = "roformer", ("attention/branch/query", "attention/branch/key")


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    need(config, NAME, rotary_value=(False, (False,)), add_cross_attention=(False, (False,)))
    width = config.get("hidden_size", 768)
    inner = config.get("embedding_size") or width
    return {
        "embedding_width": None if inner == width else inner,
        "head_activation": ACTIVATION_NAMES.get(config.get("hidden_act", "gelu")),
    }


def _write(model: Mapping[str, Any]) -> dict[str, Any]:
    if model["head_activation"] != model["activation"]:
        raise UserError(
            f"config.model.head_activation: {model['head_activation']!r}; models of {NAME!r} have "
            f"there what their layers have: {model['activation']!r}"
        )
    return {
        "embedding_size": model["embedding_width"] or model["width"],
        "rotary_value": False,
    }


def _angles(model: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The table of sines, then cosines, of each position: `RoFormerSinusoidalPositionalEmbedding`."""
    table = sinusoids(model["max_length"], model["width"] // model["heads"])
    return {"encoder.embed_positions.weight": np.concatenate([table[:, ::2], table[:, 1::2]], 1)}


ROFORMER = FAMILIES.register(
    replace(
        ELECTRA,
        name=NAME,
        source="Su et al. 2021 (arXiv 2104.09864); RoFormerForSequenceClassification",
        architecture="RoFormerForSequenceClassification",
        prefix="roformer.",
        settings=tuple(
            replace(s, default={"vocabulary": 50_000, "max_length": 1536}.get(s.ours, s.default))
            for s in SIZES
        ),
        fixed={**POST_LN, "positions": "rotary"},
        required={"is_decoder": False},
        rules=tuple(
            replace(rule, layout=PAIRED) if rule.ours in PAIRS else rule
            for rule in ELECTRA.rules
            if rule.ours != "positions"
        ),
        read=_read,
        write=_write,
        unread=UNREAD,
        derived=_angles,
    )
)
