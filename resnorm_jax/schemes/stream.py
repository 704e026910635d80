"""Streams: what sublayers read from and write to. Pure functions over a fixed-shape carry.

``open`` makes the carry from the embedded input, ``read`` gives a branch its input, ``write`` takes
the branch's output in, ``close`` gives the stack's output. Parameters are declared as data; whoever
runs the stream creates them and hands them in by name.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp

from resnorm_jax.ops.residual import check_shapes, residual, scaled
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.schemes.slots import NormSlot

Carry = Any
Rule = Callable[[jax.Array, jax.Array, "Site"], jax.Array]
Scale = float | jax.Array
Normalize = Callable[[str, jax.Array], jax.Array]


def _no_norm(name: str, x: jax.Array) -> jax.Array:
    return x


@dataclass(frozen=True)
class Site:
    """Where a stream is read or written, and what it may use there.

    Layers and sublayers are counted from 1.

    Attributes:
      width: D.
      layers: N, layers of the stack.
      sublayers: of the stack.
      layer: l, the layer; a number, or traced in a scanned stack.
      sublayer: s, the sublayer among those of the whole stack; likewise.
      position: of the sublayer within its layer.
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
    layer: int | jax.Array = 1
    sublayer: int | jax.Array = 1
    position: int = 1
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
        site's layer and sublayer may be traced, and whose docstring begins with that value.
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
      equation: one line from which its functions can be written: x the stream, f the branch's
        output, a and b the arrangement's scales of the two, D the width, N layers, l the layer and
        s the sublayer from 1; the names of parameters stand in brackets behind their letters.
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

    @property
    def reads(self) -> bool:
        """Whether it has a way of its own to read: a branch's input is not the carry as it is."""
        return self.read is not _read

    def finish(self, carry: Carry, site: Site) -> jax.Array:
        """Return the stack's output: `close`, or the final norm of `view`."""
        if self.close is None:
            return site.norm("final_norm", self.view(carry))
        return self.close(carry, site)


# --- What many schemes use ---


def add(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    """``skip_scale * x + branch_scale * y``."""
    return residual(x, y, skip_scale=site.skip_scale, branch_scale=site.branch_scale)


def written(rule: Rule) -> Rule:
    """Make a rule the ``write`` of a stream: in float32 at least, rounded to the stream's dtype once.

    Args:
      rule: ``(x, y, site) -> x``; it is given the stream and the branch with the arrangement's scales
        already on them, and a site whose parameters are as wide.

    Returns:
      Function of a stream and a branch of one shape ``[B, L, D]``, in any dtypes, and a site. It
      raises ValueError for two shapes.
    """

    def write(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
        check_shapes(x, y)
        wide = statistics_dtype(x)
        parameters = {name: value.astype(wide) for name, value in site.parameters.items()}
        skip = scaled(x.astype(wide), site.skip_scale)
        branch = scaled(y.astype(wide), site.branch_scale)
        return rule(skip, branch, replace(site, parameters=parameters)).astype(x.dtype)

    return write


def scalar(site: Site) -> tuple[int, ...]:
    """Shape of a scalar."""
    return ()


def vector(site: Site) -> tuple[int, ...]:
    """Shape of a factor for each feature."""
    return (site.width,)


def by_fan_in(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    """``N(0, 1 / rows)``, rows the first axis of its shape."""
    return jax.random.normal(key, shape, dtype) / math.sqrt(shape[0])


ADD = Stream("add", "a x + b f", "He et al. 2015 (arXiv 1512.03385), eq. 1", add)
