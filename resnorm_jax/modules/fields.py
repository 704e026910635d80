"""Fields that many modules share, declared once, and the records that modules hand on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from resnorm_jax.norms.layer import LayerNorm, RMSNorm
from resnorm_jax.planning import PlannedNorm

Normalize = Callable[[jax.Array], jax.Array]
# What norms may ask for at a call: see `resnorm_jax.norms.table.CONTEXT`.
Context = Mapping[str, Any]


@dataclass(frozen=True)
class Numerics:
    """Dtypes, and the axis that devices share.

    Attributes:
      dtype: of the computation; None for that of the input.
      param_dtype: of the parameters.
      axis_name: mapped axis over which the batch is spread, for norms across rows.
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32
    axis_name: str | None = None


PLAIN = Numerics()


class NumericFields(nn.Module, kw_only=True):
    """The fields of `Numerics`, for modules that people make by hand."""

    dtype: Any = None
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    @property
    def numerics(self) -> Numerics:
        """The fields as one record."""
        return Numerics(self.dtype, self.param_dtype, self.axis_name)


class NormFields(NumericFields, kw_only=True):
    """Which norm stands where: ``norm`` by default, ``norms`` by slot, and their epsilon."""

    norm: Any = "layer"
    norms: Mapping[str, Any] = field(default_factory=FrozenDict)
    norm_epsilon: float | None = None

    @property
    def slot_norms(self) -> dict[str, Any]:
        """Slot to norm, with ``"default"``."""
        return {"default": self.norm, **self.norms}


def make_norm(
    norm: PlannedNorm, numerics: Numerics, context: Context, dtype: Any = None
) -> Normalize:
    """Make a planned norm inside the module whose compact call is running.

    Args:
      norm: of the plan.
      numerics: dtypes and axis.
      context: ``mask``, ``condition`` and ``deterministic``, for norms that ask.
      dtype: of the result, in place of that of ``numerics``.
    """
    made = _module(norm, numerics, dtype)
    told = {key: context.get(key) for key in norm.spec.context}
    if "deterministic" in told:
        told["deterministic"] = context.get("deterministic", True)
    return lambda x: made(x, **told)


def apply_norm(
    norm: PlannedNorm | None, x: jax.Array, numerics: Numerics, context: Context
) -> jax.Array:
    """Normalize ``x`` as planned; return it as it is where no norm stands."""
    return x if norm is None else make_norm(norm, numerics, context)(x)


def norm_and_stream(
    norm: PlannedNorm | None, x: jax.Array, numerics: Numerics, context: Context
) -> tuple[jax.Array, jax.Array]:
    """Normalize ``x`` as `apply_norm` does, and return ``x`` beside it, to be used further.

    A norm that can then adds up the two gradients of ``x`` in its own backward pass.
    """
    if norm is not None and not norm.spec.context:
        made = _module(norm, numerics)
        if isinstance(made, LayerNorm | RMSNorm):
            return made(x, stream=True)
        return made(x), x
    return apply_norm(norm, x, numerics, context), x


def _module(norm: PlannedNorm, numerics: Numerics, dtype: Any = None) -> nn.Module:
    return norm.spec.build(
        name=norm.name,
        epsilon=norm.epsilon,
        scale_init=norm.scale_init,
        dtype=numerics.dtype if dtype is None else dtype,
        param_dtype=numerics.param_dtype,
        axis_name=numerics.axis_name,
    )
