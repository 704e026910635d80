"""How arrays are laid over devices, as far as their types say; where rows and positions are spread."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh

_STANDING: ContextVar[dict[str, tuple[str, ...]] | None] = ContextVar("standing_axes", default=None)


def laid_over_devices(array: jax.Array) -> bool:
    """Return whether the type of an array says how it is laid out: folding axes would lose it."""
    return any(part is not None for part in jax.typeof(array).sharding.spec)


@contextmanager
def standing_for(name: str, axes: tuple[str, ...]) -> Iterator[None]:
    """While a program is traced, let the mapped axis ``name`` of a model be these axes of a mesh.

    So one model serves under `jax.pmap`, which has one axis, and where rows are spread over several.
    """
    before = _STANDING.get()
    try:
        _STANDING.set({**(before or {}), name: axes})
        yield
    finally:
        _STANDING.set(before)


def mapped_axes(name: str | None) -> Any:
    """Return what stands for a mapped axis where a program is traced: its own name, or several.

    >>> with standing_for("devices", ("data", "fsdp")):
    ...     mapped_axes("devices")
    ('data', 'fsdp')
    """
    return name if name is None else (_STANDING.get() or {}).get(name, name)


@dataclass(frozen=True)
class Positions:
    """The devices over which the positions of each row are shared out.

    Attributes:
      axis: of a mesh.
      size: how many they are.
      mesh: it, or None where the program is inside `jax.shard_map` over other axes of it.
    """

    axis: str
    size: int
    mesh: Mesh | None = None


_POSITIONS: ContextVar[Positions | None] = ContextVar("positions", default=None)


@contextmanager
def positions_over(positions: Positions | None) -> Iterator[None]:
    """While a program is traced, let the positions of its rows be shared out; None for not."""
    token = _POSITIONS.set(positions)
    try:
        yield
    finally:
        _POSITIONS.reset(token)


def positions() -> Positions | None:
    """Return the devices over which positions are shared out where a program is traced, or None."""
    return _POSITIONS.get()


@dataclass(frozen=True)
class Inside:
    """The devices with the same rows, of which each has a share of what is inside of a branch.

    Attributes:
      axis: of a mesh, which XLA divides the program along.
      size: how many they are.
    """

    axis: str
    size: int


_INSIDE: ContextVar[Inside | None] = ContextVar("inside", default=None)


@contextmanager
def inside_over(inside: Inside | None) -> Iterator[None]:
    """While a program is traced, let the inside of its branches be shared out; None for not."""
    token = _INSIDE.set(inside)
    try:
        yield
    finally:
        _INSIDE.reset(token)


def inside() -> Inside | None:
    """Return the devices over which the inside of branches is shared out, or None."""
    return _INSIDE.get()
