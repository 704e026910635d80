"""Arrangements: where a Transformer normalizes and how it adds, as data.

>>> from resnorm_jax import arrangements
>>> arrangements.get("peri_ln").name
'sandwich_ln'
"""

from resnorm_jax.arrangements import (
    catalog,
    catalog_gates,
    catalog_memory,
    catalog_multi,
    catalog_rows,
)
from resnorm_jax.arrangements.catalog import DEFAULT
from resnorm_jax.arrangements.depth_rules import DepthRule, Place
from resnorm_jax.arrangements.plan import (
    SLOTS,
    Norm,
    Norms,
    Segment,
    check_slots,
    plan_layers,
    with_cross_attention,
)
from resnorm_jax.arrangements.spec import ORDER, ROLES, Arrangement, Init, Inside, NormSlot
from resnorm_jax.registry import Registry

_REGISTRY: Registry[Arrangement] = Registry(
    "arrangement",
    (
        *catalog.ROWS,
        *catalog_gates.ROWS,
        *catalog_memory.ROWS,
        *catalog_multi.ROWS,
        *catalog_rows.ROWS,
    ),
)
get = _REGISTRY.get
names = _REGISTRY.names
register = _REGISTRY.register
rows = _REGISTRY.rows

__all__ = [
    "DEFAULT",
    "ORDER",
    "ROLES",
    "SLOTS",
    "Arrangement",
    "DepthRule",
    "Init",
    "Inside",
    "Norm",
    "NormSlot",
    "Norms",
    "Place",
    "Segment",
    "check_slots",
    "get",
    "names",
    "plan_layers",
    "register",
    "rows",
    "with_cross_attention",
]
