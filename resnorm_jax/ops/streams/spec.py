"""What a stream is made of: pure functions over a fixed-shape carry, and parameters as data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp

from resnorm_jax.arrangements import NormSlot

Carry = Any
Scale = float | jax.Array
Normalize = Callable[[str, jax.Array], jax.Array]


def _no_norm(name: str, x: jax.Array) -> jax.Array:
    return x


@dataclass(frozen=True)
class Site:
    """Where a stream is read or written, and what it may use there.

    Attributes:
      width: D.
      layers: N, layers of the stack.
      sublayers: of the stack.
      layer: 0-based index of the layer; a number, or traced in a scanned stack.
      sublayer: 0-based index of the sublayer in the stack; likewise.
      position: 0-based index of the sublayer within its layer.
      last: whether it is the last of its layer.
      skip_scale: the arrangement's factor on the stream.
      branch_scale: the arrangement's factor on the branch.
      mask: ``[B, L]``, True where a position is valid, or None.
      condition: ``[B, C]`` that adaptive schemes adapt to, or None.
      step: updates done, float32; for streams that are `Stream.scheduled`, else 0.
      parameters: the stream's parameters by name.
      norm: applies one of the stream's own norms, or ``"final_norm"`` in `Stream.close`, by name.
    """

    width: int
    layers: int = 1
    sublayers: int = 2
    layer: int | jax.Array = 0
    sublayer: int | jax.Array = 0
    position: int = 0
    last: bool = False
    skip_scale: Scale = 1.0
    branch_scale: Scale = 1.0
    mask: jax.Array | None = None
    condition: jax.Array | None = None
    step: float | jax.Array = 0.0
    parameters: Mapping[str, jax.Array] = field(default_factory=dict)
    norm: Normalize = _no_norm


@dataclass(frozen=True)
class StreamParameter:
    """A learned parameter of a stream.

    Attributes:
      name: its name in the parameter tree. Weight decay goes by names: see
        `resnorm_jax.training.optimizers`.
      shape: function of the `Site` (its Python numbers) that gives its shape.
      init: initial value of every element; or ``(key, shape, dtype, site) -> array``, where the
        site's layer and sublayer may be traced.
      scope: ``"sublayer"``; ``"layer"`` when the sublayers of a layer share it; ``"stack"`` when all
        layers and `Stream.close` do.
    """

    name: str
    shape: Callable[[Site], tuple[int, ...]]
    init: float | Callable[..., jax.Array]
    scope: Literal["sublayer", "layer", "stack"] = "sublayer"

    def create(self, key: jax.Array, dtype: Any, site: Site) -> jax.Array:
        """Return its first value."""
        shape = self.shape(site)
        if callable(self.init):
            return self.init(key, shape, dtype, site)
        return jnp.full(shape, self.init, dtype)


def _open(x: jax.Array, site: Site) -> Carry:
    return x


def _read(carry: Carry, site: Site) -> jax.Array:
    return carry


def _view(carry: Carry) -> jax.Array:
    return carry


def _on_stream(norm: Callable[[jax.Array], jax.Array], carry: Carry) -> Carry:
    return norm(carry)


@dataclass(frozen=True)
class Stream:
    """A residual scheme.

    Attributes:
      name: name of the row.
      equation: one line, for people.
      source: paper or code.
      write: ``(carry, y, site) -> carry`` of the same structure, shapes and dtypes.
      open: ``(x [B, L, D], site) -> carry``.
      read: ``(carry, site) -> [B, L, D]``.
      close: ``(carry, site) -> [B, L, D]``, with ``site.norm("final_norm", z)`` applied where the
        scheme has it (it does nothing in an arrangement without); None for that norm of `view`.
      view: ``carry -> [B, L, D]``: what stands for "the stream" in plots and in single blocks.
      on_stream: ``(norm, carry) -> carry``: how a norm on the stream applies to the carry.
      parameters: learned parameters.
      norms: the stream's own norms by name, used in `read` and `write`.
      closing_norms: its own norms used in `close`.
      scheduled: whether it reads ``site.step``.
      aliases: other names.
    """

    name: str
    equation: str
    source: str
    write: Callable[[Carry, jax.Array, Site], Carry]
    open: Callable[[jax.Array, Site], Carry] = _open
    read: Callable[[Carry, Site], jax.Array] = _read
    close: Callable[[Carry, Site], jax.Array] | None = None
    view: Callable[[Carry], jax.Array] = _view
    on_stream: Callable[[Callable[[jax.Array], jax.Array], Carry], Carry] = _on_stream
    parameters: tuple[StreamParameter, ...] = ()
    norms: Mapping[str, NormSlot] = field(default_factory=dict, hash=False)
    closing_norms: Mapping[str, NormSlot] = field(default_factory=dict, hash=False)
    scheduled: bool = False
    aliases: tuple[str, ...] = ()

    def finish(self, carry: Carry, site: Site) -> jax.Array:
        """Return the stack's output: `close`, or the final norm of `view`."""
        if self.close is None:
            return site.norm("final_norm", self.view(carry))
        return self.close(carry, site)
