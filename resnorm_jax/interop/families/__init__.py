"""The families, one file each kind; importing it fills `FAMILIES`."""

from resnorm_jax.interop.families import bert, vit
from resnorm_jax.interop.family import FAMILIES

__all__ = ["FAMILIES", "bert", "vit"]
