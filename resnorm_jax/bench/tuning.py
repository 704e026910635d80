"""The kernels' tiles: what the kernels' own tuner finds best on this device."""

from typing import Any

import jax

from resnorm_jax.errors import UserError
from resnorm_jax.ops.norms.kernels import triton
from resnorm_jax.ops.norms.kernels.tune import tune


def tuned_row(shape: tuple[int, int], dtype: str) -> dict[str, Any]:
    """Measure the tiles of one shape and dtype.

    Args:
      shape: rows and width.
      dtype: of the array.

    Returns:
      ``tiles``: rows as `resnorm_jax.ops.norms.kernels` keeps them in ``tiles.json``.

    Raises:
      UserError: there is no GPU, or this JAX has no such kernels.
    """
    backend = jax.default_backend()
    other = f"tiles are measured on a GPU; this is {backend}" if backend != "gpu" else None
    reason = other or triton.unavailable()
    if reason is not None:
        raise UserError(f"--only=tune: {reason}; measure something else")
    device, found = (
        jax.devices()[0].device_kind,
        tune([shape], [dtype], "resnorm bench --only=tune"),
    )
    mine = (device, shape[1], dtype)
    tiles = [row for row in found if (row["device"], row["width"], row["dtype"]) == mine]
    return {"key": f"{shape[0]}x{shape[1]} {dtype}", "tiles": tiles}
