"""Vision Transformers: Pre-LN, with a class token before the patches."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from resnorm_jax.data.names import shown
from resnorm_jax.errors import UserError
from resnorm_jax.interop.family import ACTIVATION_NAMES, FAMILIES, Family, Joint, Setting
from resnorm_jax.interop.layouts import CONVOLUTION, JOINED, LINEAR, NORM, Rule, array

LAYER, BEFORE = "layers.{}.", "encoder.layer.{}."


def _layer(now: str, before: str, ours: str, layout: Any) -> Rule:
    """A rule of a module that has had two names."""
    return Rule(f"{BEFORE}{before}", ours, layout, also=(f"{LAYER}{now}",))


def patches(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return how many patches an image has.

    Raises:
      UserError: for images that are not square.
    """
    sizes = []
    for name, usual in (("image_size", 224), ("patch_size", 16)):
        value = config.get(name, usual)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"config.json: {name} is {shown(value)}; a number is read, of a square")
        sizes.append(value)
    return {"max_length": (sizes[0] // sizes[1]) ** 2}


def image_size(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the side of an image in pixels, in their words."""
    return {"image_size": round(model["max_length"] ** 0.5) * model["patch"]}


VIT = FAMILIES.register(
    Family(
        name="vit",
        source="Dosovitskiy et al. 2020 (arXiv 2010.11929); ViTForImageClassification",
        architecture="ViTForImageClassification",
        prefix="vit.",
        kind="images",
        settings=(
            Setting("hidden_size", "width", 768),
            Setting("num_hidden_layers", "depth", 12),
            Setting("num_attention_heads", "heads", 12),
            Setting("intermediate_size", "mlp_width", 3072),
            Setting("hidden_act", "activation", "gelu", ACTIVATION_NAMES),
            Setting("layer_norm_eps", "norm_epsilon", 1e-12),
            Setting("patch_size", "patch", 16),
        ),
        fixed={
            "arrangement": "pre_ln", "norm": "layer", "positions": "learned", "pooling": "cls",
        },
        required={"qkv_bias": True},
        rules=(
            Rule("embeddings.cls_token", "", array("cls", ones=2)),
            Rule("embeddings.position_embeddings", "positions", array("embedding", ones=1)),
            Rule("embeddings.patch_embeddings.projection", "front_end/project", CONVOLUTION),
            *(
                _layer(f"attention.{role[0]}_proj", f"attention.attention.{role}",
                       f"attention/branch/{role}", LINEAR)
                for role in ("query", "key", "value")
            ),
            _layer("attention.o_proj", "attention.output.dense", "attention/branch/out", JOINED),
            _layer("layernorm_before", "layernorm_before", "attention/norm_before", NORM),
            _layer("layernorm_after", "layernorm_after", "feed_forward/norm_before", NORM),
            _layer("mlp.fc1", "intermediate.dense", "feed_forward/branch/fc1", LINEAR),
            _layer("mlp.fc2", "output.dense", "feed_forward/branch/fc2", LINEAR),
            Rule("layernorm", "encoder/final_norm", NORM),
            Rule("classifier", "head", LINEAR, outside=True),
        ),
        read=patches,
        write=image_size,
        unread=(r"pooler\..*",),
    )
)  # fmt: skip
DEIT = FAMILIES.register(
    replace(
        VIT,
        name="deit",
        source="Touvron et al. 2020 (arXiv 2012.12877); DeiTForImageClassification",
        architecture="DeiTForImageClassification",
        prefix="deit.",
        fixed={**VIT.fixed, "pooling": "distilled"},
        rules=(
            Rule("embeddings.distillation_token", "", array("distillation", ones=2)),
            *VIT.rules,
        ),
        # Of DeiTForImageClassificationWithTeacher, which has a head for each of the two tokens.
        unread=(*VIT.unread, r"(cls|distillation)_classifier\..*"),
    )
)
# Its logits are the mean of those of two heads, one for each token: one head of both tokens, halved.
_HEADS = ("cls_classifier", "distillation_classifier")
DEIT_WITH_TEACHER = FAMILIES.register(
    replace(
        DEIT,
        name="deit-with-teacher",
        model_type="deit",
        source="Touvron et al. 2020 (arXiv 2012.12877); DeiTForImageClassificationWithTeacher",
        architecture="DeiTForImageClassificationWithTeacher",
        fixed={**DEIT.fixed, "pooling": "distilled_pair"},
        joints=(
            Joint(
                "classifier.weight",
                tuple(f"{name}.weight" for name in _HEADS),
                lambda a, b: np.concatenate([a, b], axis=1) / 2,
                lambda both: tuple(2 * half for half in np.split(both, 2, axis=1)),
            ),
            Joint(
                "classifier.bias",
                tuple(f"{name}.bias" for name in _HEADS),
                lambda a, b: (a + b) / 2,
                lambda both: (both, both),
            ),
        ),
        unread=VIT.unread,
    )
)
