"""Arrangements by name: where a Transformer normalizes and how it adds, as data.

>>> from resnorm_jax import arrangements
>>> arrangements.get("peri_ln").name
'sandwich_ln'
"""

from resnorm_jax.schemes import ARRANGEMENTS, DEFAULT, STREAMS
from resnorm_jax.schemes.place import DepthRule, Place
from resnorm_jax.schemes.slots import SLOTS, NormSlot
from resnorm_jax.schemes.spec import (
    ATTENTION,
    FEED_FORWARD,
    ORDER,
    ROLES,
    Arrangement,
    Branch,
    Init,
    Inside,
)

get = ARRANGEMENTS.get
names = ARRANGEMENTS.names
rows = ARRANGEMENTS.rows


def register(row: Arrangement, *, replace: bool = False) -> Arrangement:
    """Add a row, and its stream if no stream of that name is known; return the row.

    Raises:
      ValueError: if its name is taken, unless ``replace``.
    """
    ARRANGEMENTS.register(row, replace=replace)
    if row.stream.name not in STREAMS.names():
        STREAMS.register(row.stream)
    return row


__all__ = [
    "ATTENTION",
    "DEFAULT",
    "FEED_FORWARD",
    "ORDER",
    "ROLES",
    "SLOTS",
    "Arrangement",
    "Branch",
    "DepthRule",
    "Init",
    "Inside",
    "NormSlot",
    "Place",
    "get",
    "names",
    "register",
    "rows",
]
