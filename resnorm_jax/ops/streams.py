"""Streams: what sublayers read from and write to. Four pure functions over a fixed-shape carry.

``open`` makes the carry from the embedded input, ``read`` gives a branch its input, ``write`` takes
the branch's output in, ``close`` gives the stack's output. Parameters are declared as data; whoever
runs the stream creates them and hands them in by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax

from resnorm_jax.ops.residual import residual
from resnorm_jax.registry import Registry

Carry = Any
Parameters = Mapping[str, jax.Array]
Scale = float | jax.Array


@dataclass(frozen=True)
class StreamParameter:
    """A learned parameter of a stream.

    Attributes:
      name: its name in the parameter tree.
      shape: function of the width that gives its shape.
      init: initial value of every element.
      scope: ``"sublayer"``, or ``"layer"`` when the sublayers of one layer share it.
    """

    name: str
    shape: Callable[[int], tuple[int, ...]]
    init: float
    scope: Literal["sublayer", "layer"] = "sublayer"


@dataclass(frozen=True)
class Stream:
    """A residual scheme.

    Attributes:
      name: name of the row.
      equation: one line, for people.
      source: paper or code.
      open: ``x [B, L, D] -> carry``.
      read: ``(carry, parameters) -> [B, L, D]``.
      write: ``(carry, y, parameters, skip_scale, branch_scale) -> carry`` of the same structure.
      close: ``carry -> [B, L, D]``.
      on_stream: ``(norm, carry) -> carry``: how a norm on the stream applies to the carry.
      parameters: learned parameters.
    """

    name: str
    equation: str
    source: str
    write: Callable[[Carry, jax.Array, Parameters, Scale, Scale], Carry]
    open: Callable[[jax.Array], Carry] = lambda x: x
    read: Callable[[Carry, Parameters], jax.Array] = lambda carry, parameters: carry
    close: Callable[[Carry], jax.Array] = lambda carry: carry
    on_stream: Callable[[Callable[[jax.Array], jax.Array], Carry], Carry] = lambda norm, c: norm(c)
    parameters: tuple[StreamParameter, ...] = ()


def _add(x, y, parameters, skip_scale, branch_scale):
    return residual(x, y, skip_scale=skip_scale, branch_scale=branch_scale)


def _replace(x, y, parameters, skip_scale, branch_scale):
    return y.astype(x.dtype)


def _gate(x, y, parameters, skip_scale, branch_scale):
    gated = y * parameters["gate"].astype(y.dtype)
    return residual(x, gated, skip_scale=skip_scale, branch_scale=branch_scale)


STREAMS: Registry[Stream] = Registry(
    "stream",
    (
        Stream("add", "a x + b f", "He et al. 2015 (arXiv 1512.03385), eq. 1", _add),
        Stream("replace", "f", "control: no skip", _replace),
        Stream(
            "scalar_gate",
            "a x + g b f, scalar g per layer, 0 at first",
            "Bachlechner et al. 2020 (arXiv 2003.04887)",
            _gate,
            parameters=(StreamParameter("gate", lambda width: (), 0.0, "layer"),),
        ),
    ),
)
