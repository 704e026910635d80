"""BEiT: a Vision Transformer with LayerScale and relative positions of patches."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from resnorm_jax.errors import UserError
from resnorm_jax.interop.families.shared import need
from resnorm_jax.interop.families.vit import BEFORE, LAYER, VIT, image_size, patches
from resnorm_jax.interop.family import FAMILIES
from resnorm_jax.interop.layouts import NORM, Leaf, Rule, array

NAME = "beit"
TABLE = {
    "embedding": Leaf(
        "relative_position_bias_table", lambda a, shape: a.reshape(shape), lambda a: a
    )
}


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    need(config, NAME, add_fpn=(False, (False,)))
    own = bool(config.get("use_relative_position_bias", False))
    shared = bool(config.get("use_shared_relative_position_bias", False))
    if own and shared:
        raise UserError(
            "config.json: use_relative_position_bias and use_shared_relative_position_bias are both "
            f"true; of {NAME!r} models only those with one of them are read"
        )
    if not config.get("layer_scale_init_value", 0.1) > 0:
        raise UserError(
            f"config.json: layer_scale_init_value is {config['layer_scale_init_value']}; of {NAME!r} "
            "models only those with lambda_1 and lambda_2 are read, where it is over 0"
        )
    mean = config.get("use_mean_pooling", True)
    found = patches(config)
    return {
        **found,
        "positions": "learned" if config.get("use_absolute_position_embeddings") else "none",
        "relative": "grid" if own or shared else "none",
        "relative_by_layer": own,
        "relative_buckets": round(found["max_length"] ** 0.5) if own or shared else None,
        # The mean of the patches is normalized, or else all positions are.
        "pooling": "patches" if mean else "cls",
        "head_norm": "layer" if mean else None,
        "final_norm": "none" if mean else None,
    }


def _write(model: Mapping[str, Any]) -> dict[str, Any]:
    out = {
        **image_size(model),
        "patch_size": model["patch"],
        "layer_scale_init_value": 0.1,
        "use_absolute_position_embeddings": model["positions"] == "learned",
        "use_relative_position_bias": model["relative"] == "grid" and model["relative_by_layer"],
        "use_shared_relative_position_bias": model["relative"] == "grid"
        and not model["relative_by_layer"],
        "use_mean_pooling": model["pooling"] == "patches",
        "use_mask_token": False,
    }
    for field, value in _read(out).items():
        if model[field] != value:
            raise UserError(
                f"config.model.{field}: {model[field]!r}; a {NAME!r} model with the other fields has "
                f"{value!r}"
            )
    return out


def _gate(number: int, block: str) -> Rule:
    theirs = f"lambda_{number}"
    return Rule(f"{BEFORE}{theirs}", block, array("gate"), also=(f"{LAYER}{theirs}",))


BEIT = FAMILIES.register(
    replace(
        VIT,
        name=NAME,
        source="Bao et al. 2021 (arXiv 2106.08254); BeitForImageClassification",
        architecture="BeitForImageClassification",
        prefix="beit.",
        fixed={
            "arrangement": "layer_scale", "norm": "layer", "use_bias": "query+value+out+fc1+fc2",
        },
        required={},
        rules=(
            *VIT.rules,
            _gate(1, "attention"),
            _gate(2, "feed_forward"),
            Rule(f"{BEFORE}attention.attention.relative_position_bias", "relative", TABLE,
                 also=(f"{LAYER}relative_position_bias",)),
            Rule("encoder.relative_position_bias", "encoder/relative", TABLE,
                 also=("shared_position_bias",)),
            Rule("pooler.layernorm", "head_norm", NORM),
        ),
        read=_read,
        write=_write,
        # A token and a head of pretraining, and an index that older files keep.
        unread=(
            r"embeddings\.mask_token", r"lm_head\..*", r"layernorm\..*",
            r".*relative_position_index",
        ),
    )
)  # fmt: skip
