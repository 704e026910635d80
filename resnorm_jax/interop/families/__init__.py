"""The families, one file each kind; importing it fills `FAMILIES`."""

from resnorm_jax.interop.families import (
    albert,
    beit,
    bert,
    deberta,
    decoders,
    modern_bert,
    roformer,
    vit,
)
from resnorm_jax.interop.family import FAMILIES

__all__ = [
    "FAMILIES",
    "albert",
    "beit",
    "bert",
    "deberta",
    "decoders",
    "modern_bert",
    "roformer",
    "vit",
]
