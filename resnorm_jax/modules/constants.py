"""Depth rules evaluated: the constants of each layer, fixed or scanned."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from resnorm_jax.arrangements import Arrangement, Place, Segment
from resnorm_jax.ops.streams import Scale

# The roles of each kind of sublayer's projections. A sublayer's kind is its name without a number.
KIND_ROLES = {
    "attention": ("query", "key", "value", "out"),
    "cross_attention": ("query", "key", "value", "out"),
    "feed_forward": ("fc1", "fc2"),
}
Constants = dict[str, Scale]


def kind_of(sublayer: str) -> str:
    """Return the kind of a sublayer: ``"feed_forward"`` for ``"feed_forward_1"``."""
    return sublayer.rstrip("0123456789").rstrip("_")


def group_name(group: Sequence[str]) -> str:
    """Return the name of a group of sublayers: its only member's, or ``"parallel"``."""
    return group[0] if len(group) == 1 else "parallel"


def layer_constants(arrangement: Arrangement, place: Place, drop_path: float) -> Constants:
    """Return a layer's constants by name: ``attention/skip_scale``, ``drop_path`` and so on.

    Args:
      arrangement: whose rules are evaluated.
      place: of the layer; its sublayers count from ``place.sublayer``.
      drop_path: drop rate at the last layer; ``l / N`` of it at layer l (Huang et al. 2016, eq. 4).
    """
    constants: Constants = {
        "drop_path": drop_path * place.layer / place.layers,
        "layer": place.layer - 1,
        "sublayer": place.sublayer - 1,
    }
    for offset, group in enumerate(arrangement.order):
        here, name = replace(place, sublayer=place.sublayer + offset), group_name(group)
        row = arrangement.at(name)
        for scale in ("read_scale", "skip_scale", "branch_scale"):
            constants[f"{name}/{scale}"] = getattr(row, scale)(here)
        for sublayer in group:
            for role in set(KIND_ROLES[kind_of(sublayer)]) & set(row.init.gains):
                constants[f"{sublayer}/gain/{role}"] = row.init.gains[role](here)
    return constants


def varying_constants(segment: Segment, drop_path: float) -> dict[str, Any]:
    """Return the constants that differ between a segment's layers, each stacked to ``[N]``.

    Constants that are equal at all layers are left out: they stay Python numbers in the compiled
    body, where a factor of 1 costs nothing.
    """
    rows = [layer_constants(segment.arrangement, place, drop_path) for place in segment.places]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: jnp.asarray(column, jnp.int32 if isinstance(column[0], int) else jnp.float32)
        for name, column in columns.items()
        if len(set(column)) > 1
    }
