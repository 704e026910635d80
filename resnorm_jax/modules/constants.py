"""Depth rules evaluated: the constants of each layer, fixed or scanned."""

from dataclasses import replace

import jax.numpy as jnp

from resnorm_jax.arrangements import Arrangement, Place
from resnorm_jax.ops.streams import Scale

SUBLAYER_ROLES = {
    "attention": ("query", "key", "value", "out"),
    "feed_forward": ("fc1", "fc2"),
}
Constants = dict[str, Scale]


def layer_constants(arrangement: Arrangement, place: Place, drop_path: float) -> Constants:
    """Return a layer's constants by name: ``attention/skip_scale``, ``drop_path`` and so on.

    Args:
      arrangement: whose rules are evaluated.
      place: of the layer; its sublayers count from ``place.sublayer``.
      drop_path: drop rate at the last layer; ``l / N`` of it at layer l (Huang et al. 2016, eq. 4).
    """
    constants: Constants = {"drop_path": drop_path * place.layer / place.layers}
    for offset, (sublayer, roles) in enumerate(SUBLAYER_ROLES.items()):
        here = replace(place, sublayer=place.sublayer + offset)
        constants[f"{sublayer}/skip_scale"] = arrangement.skip_scale(here)
        constants[f"{sublayer}/branch_scale"] = arrangement.branch_scale(here)
        for role in set(roles) & set(arrangement.init.gains):
            constants[f"{sublayer}/gain/{role}"] = arrangement.init.gains[role](here)
    return constants


def varying_constants(arrangement: Arrangement, layers: int, drop_path: float) -> Constants:
    """Return the constants that differ between layers, each stacked to ``[N]``.

    Constants that are equal at all layers are left out: they stay Python numbers in the compiled
    body, where a factor of 1 costs nothing.
    """
    per_layer = len(SUBLAYER_ROLES)
    rows = [
        layer_constants(
            arrangement,
            Place(layers, layer + 1, per_layer * layer + 1, per_layer * layers),
            drop_path,
        )
        for layer in range(layers)
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: jnp.asarray(column, jnp.float32)
        for name, column in columns.items()
        if len(set(column)) > 1
    }
