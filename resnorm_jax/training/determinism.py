"""The same bits from the same config: what XLA is told for it, by platform, and what holds."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import jax

from resnorm_jax.ops.attention.flash import Backward, flash_backward

# On CPU and TPU XLA's programs give the same bits each time. On a GPU some add in the order in which
# threads come (scatter, the backward pass of cuDNN's attention), and the fastest of several kernels is
# chosen by a clock, when a program is compiled. The first option is against both, as XLA describes it;
# the second is, in some versions, for fusions too. Options of a program stand above XLA_FLAGS.
OPTIONS: dict[str, dict[str, bool]] = {
    "gpu": {"xla_gpu_deterministic_ops": True, "xla_gpu_exclude_nondeterministic_ops": True},
}
_OFF = ("false", "0")


@dataclass(frozen=True)
class Determinism:
    """Whether the same config gives the same bits on the same devices and versions.

    Attributes:
      why_not: the reason, or None where it does.
      options: with which programs are compiled.
    """

    why_not: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """What a run says of it: ``yes``, or ``no: why``."""
        return "yes" if self.why_not is None else f"no: {self.why_not}"


def determinism(wanted: bool, platform: str) -> Determinism:
    """Return what holds on a platform (``cpu``, ``gpu``, ``tpu``) if it is wanted, or is not.

    The options are tried on a program of one addition: a version of XLA that does not know them must
    not end a run.
    """
    options = OPTIONS.get(platform, {})
    if not options:
        return Determinism()
    if not wanted:
        return Determinism("train.deterministic is False")
    against = [f for f in os.environ.get("XLA_FLAGS", "").split() if _turns_off(f, options)]
    if against:
        return Determinism(f"XLA_FLAGS has {against[0]}")
    try:
        jax.jit(lambda x: x + 1, compiler_options=dict(options)).lower(1.0).compile()
    except jax.errors.JaxRuntimeError as error:
        return Determinism(f"XLA refuses it: {' '.join(str(error).split())}")
    return Determinism(options=options)


def traced_for(
    options: Mapping[str, Any] | None, function: Callable[..., Any], divided: bool = False
) -> Callable[..., Any]:
    """Return ``function`` that is traced as a program with these compiler options needs it.

    Args:
      options: of `Determinism`, or none.
      function: to be compiled with them.
      divided: whether XLA divides it over devices by itself.
    """
    kind: Backward = "none" if divided else "deterministic"

    @wraps(function)
    def traced(*arguments: Any) -> Any:
        with flash_backward(kind if options else "jax"):
            return function(*arguments)

    return traced


def _turns_off(flag: str, options: Mapping[str, Any]) -> bool:
    name, _, value = flag.removeprefix("--").partition("=")
    return name in options and value.lower() in _OFF
