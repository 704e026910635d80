"""How arrays are laid over devices, as far as their types say; and which axes rows are spread over."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax

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
