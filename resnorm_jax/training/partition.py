"""Which axis of a mesh each axis of a parameter is laid over: one table, by role and path.

A mesh has four axes. Rows are spread over ``data`` and ``fsdp`` together; each parameter, with what
the optimizer keeps of it, over ``fsdp``; heads and the inside of the feed-forward network also over
``tensor``, whose devices have the same rows; and the positions of these rows over ``sequence``, whose
devices have the same parameters.

The first axis of a stack of layers is never laid over devices: the loop over the layers takes one of
them at a time, which would then lie on one device and have to be sent to all others.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import PartitionSpec

from resnorm_jax.planning.roles import role_of

AXES = DATA, FSDP, TENSOR, SEQUENCE = ("data", "fsdp", "tensor", "sequence")
ROWS = (DATA, FSDP)
_STACK = re.compile(r"(^|/)layers(_\d+)?/")


@dataclass(frozen=True)
class Rule:
    """A row: which axis of some parameters is laid over ``tensor``.

    Attributes:
      role: of `resnorm_jax.planning.roles.ROLES`.
      path: pattern of the end of the path.
      tensor: the axis, counted from the last, -1.
      why: in words.
    """

    role: str
    path: str
    tensor: int
    why: str


# As in Shoeybi et al. 2019 (Megatron-LM, arXiv 1909.08053), section 3: what is cut on the way into a
# branch is summed once on the way out. What has no row, or does not divide, is alike on these devices.
RULES = (
    Rule("kernel", r"(^|/)(query|key|value)/kernel$", -2, "a device has some of the heads"),
    Rule("bias", r"(^|/)(query|key|value)/bias$", -2, "likewise"),
    Rule("kernel", r"(^|/)out/kernel$", -3, "it reads its own heads; the sum over devices follows"),
    Rule("kernel", r"(^|/)(fc1|gate)/kernel$", -1, "a device has some of the inner features"),
    Rule("bias", r"(^|/)(fc1|gate)/bias$", -1, "likewise"),
    Rule("kernel", r"(^|/)fc2/kernel$", -2, "it reads its own features; the sum follows"),
)


def spec_of(path: str, shape: tuple[int, ...], sizes: Mapping[str, int]) -> PartitionSpec:
    """Return how a parameter, or what an optimizer keeps of it, is laid over a mesh.

    ``fsdp`` takes the longest axis that it divides and that ``tensor`` has left.

    Args:
      path: of the parameter; more may stand before it.
      shape: of the array.
      sizes: of the mesh's axes.

    >>> tuple(spec_of("layers/fc1/kernel", (12, 64, 256), {"fsdp": 4, "tensor": 2}))
    (None, 'fsdp', 'tensor')
    >>> tuple(spec_of("layers/norm_before/scale", (12, 64), {"fsdp": 4, "tensor": 2}))
    (None, 'fsdp')
    """
    role = role_of(path)
    if role is None:
        return PartitionSpec()
    first = 1 if _STACK.search(path) else 0
    parts: list[str | None] = [None] * len(shape)
    rule = next((r for r in RULES if r.role == role and re.search(r.path, path)), None)
    if rule is not None and sizes[TENSOR] > 1 and len(shape) + rule.tensor >= first:
        axis = len(shape) + rule.tensor
        parts[axis] = TENSOR if shape[axis] % sizes[TENSOR] == 0 else None
    free = [a for a in range(first, len(shape)) if parts[a] is None]
    fits = [a for a in free if shape[a] >= sizes[FSDP] and shape[a] % sizes[FSDP] == 0]
    if fits and sizes[FSDP] > 1:
        parts[max(fits, key=lambda a: shape[a])] = FSDP
    return PartitionSpec(*parts)


def specs_of(tree: Any, sizes: Mapping[str, int]) -> Any:
    """Return `spec_of` of each leaf of a tree of parameters, or of an optimizer's state."""

    def spec(path: Any, leaf: Any) -> PartitionSpec:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return spec_of(name, leaf.shape, sizes)

    return jax.tree_util.tree_map_with_path(spec, tree)


def along(spec: PartitionSpec, axis: str) -> int | None:
    """Return which of an array's axes is laid over an axis of the mesh, or None."""
    return next((number for number, part in enumerate(spec) if part == axis), None)


def only(spec: PartitionSpec, axis: str) -> PartitionSpec:
    """Return a layout with one axis of the mesh left."""
    return PartitionSpec(*(part if part == axis else None for part in spec))
