"""A kernel where the types of arrays say how they are laid over devices: each computes its own rows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import AxisType

from resnorm_jax.ops.norms.kernels.form import Names

GRADIENTS = ("dscale", "dbias")


def typed(avals: Sequence[Any]) -> bool:
    """Return whether the types of arrays say how they are laid over all axes of a mesh."""
    mesh = avals[0].sharding.mesh
    return not mesh.empty and all(kind == AxisType.Explicit for kind in mesh.axis_types)


def features_are_whole(x: Any) -> bool:
    """Return whether a device has whole rows of ``x``."""
    return x.sharding.spec[-1] is None


def divided(
    run: Callable[..., list[jax.Array]], outs: Names, given: Sequence[Any], made: Sequence[Any]
) -> Callable[..., list[jax.Array]]:
    """Return ``run`` done by each device on its own rows.

    What a device has of a parameter's gradient is a sum over its rows: these are summed over the axes
    that rows are laid over.

    Args:
      run: of arrays, the results in the order of ``outs``.
      outs: their names.
      given: types of the arrays, ``x`` first.
      made: of the results.
    """
    rows = given[0].sharding.spec[:-1]
    parts = [part if isinstance(part, tuple) else (part,) for part in rows if part is not None]
    axes = tuple(axis for part in parts for axis in part)

    def on_device(*arrays: jax.Array) -> list[jax.Array]:
        found = zip(outs, run(*arrays), strict=True)
        return [lax.psum(a, axes) if axes and name in GRADIENTS else a for name, a in found]

    return jax.shard_map(
        on_device, mesh=given[0].sharding.mesh, check_vma=False,
        in_specs=tuple(a.sharding.spec for a in given), out_specs=[a.sharding.spec for a in made],
    )  # fmt: skip
