"""How devices are arranged in a mesh, and rows made to fit it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from resnorm_jax.config import MeshConfig
from resnorm_jax.errors import UserError
from resnorm_jax.training.partition import FSDP, SEQUENCE, TENSOR

POSITIONED = ("x", "mask")  # arrays of a batch of sequences whose second axis are positions


def mesh_shape(mesh: MeshConfig, devices: int) -> tuple[int, int, int, int]:
    """Return the sizes of the mesh's axes, `AXES`.

    Raises:
      UserError: if they do not divide the devices.

    >>> mesh_shape(MeshConfig(fsdp=2), 8)
    (4, 2, 1, 1)
    """
    left, of = devices, f"{devices} devices"
    for name in (SEQUENCE, TENSOR, FSDP):
        size = getattr(mesh, name) or left
        if left % size:
            near = max(n for n in range(1, min(size, left) + 1) if left % n == 0)
            raise UserError(f"config.mesh.{name}: {size} does not divide {of}; try {name}={near}")
        left //= size
        of += f" / {name}={size}" * (size > 1)
    inner = mesh.tensor * mesh.sequence
    return left, mesh.fsdp or devices // inner, mesh.tensor, mesh.sequence


def filled(rows: np.ndarray, count: int | None, shares: int) -> np.ndarray:
    """Return rows with the last repeated until they divide by ``shares``; without a count as is."""
    short = 0 if count is None else -count % shares
    return np.concatenate([rows, np.repeat(rows[-1:], short, 0)]) if short else rows


def whole_shares(rows: Mapping[str, Any], count: int) -> Mapping[str, Any]:
    """Return rows with padding on the right until their positions divide by ``count``."""
    short = -rows["x"].shape[1] % count
    if not short:
        return rows
    more = {
        name: np.pad(rows[name], [(0, 0), (0, short), *[(0, 0)] * (rows[name].ndim - 2)])
        for name in POSITIONED
        if name in rows
    }
    return {**rows, **more}
