"""What a norm by name is made of: a row of data, and the Flax module that it makes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.errors import ChoiceError
from resnorm_jax.norms.layer import Dtype
from resnorm_jax.ops.statistics import statistics_dtype

Parameters = Mapping[str, jax.Array]
# mask: [B, L] boolean or None, True where a position is valid; condition: [B, C], what an adaptive
# norm adapts to; deterministic: False while training.
CONTEXT = ("mask", "condition", "deterministic")


@dataclass(frozen=True)
class NormParameter:
    """A learned parameter of a norm.

    Attributes:
      name: its name in the parameter tree. Weight decay goes by names: see
        `resnorm_jax.planning.roles.ROLES`.
      init: initial value of every element, or a function of the width that gives it.
      per_feature: whether it has the shape ``[D]``; else it is a scalar.
    """

    name: str
    init: float | Callable[[int], float]
    per_feature: bool = True


@dataclass(frozen=True)
class NormSpec:
    """A norm by name: one row of the norms' table.

    A row has either a ``function`` with its ``parameters``, or a ``module``.

    Attributes:
      name: the name.
      equation: what it computes, with every function, constant and first value, for people.
      source: paper with equation, or the official code.
      function: ``(x [..., D], parameters by name) -> y`` of ``x``'s shape and dtype; keyword
        ``epsilon`` if the norm has one.
      parameters: what the function is given.
      module: makes the Flax module from ``epsilon``, ``dtype``, ``param_dtype``, ``name`` and,
        where a slot fixes it, ``scale_init``.
      epsilon: default epsilon; None for a norm without.
      scale_offset: what is added to ``scale`` to give the factor: 1 for zero-centred norms.
      context: what the norm is told at each call beside ``x``, by keyword: any of `CONTEXT`.
      across_rows: whether statistics run over the rows of a batch, hence over devices too: the
        module is then made with ``axis_name``.
      state: what it keeps in collections other than ``params``, for people.
      used_by: models that use it.
      since: version of this package that had it first.
    """

    name: str
    equation: str
    source: str
    function: Callable[..., jax.Array] | None = None
    parameters: tuple[NormParameter, ...] = ()
    module: Callable[..., nn.Module] | None = None
    epsilon: float | None = 1e-6
    scale_offset: float = 0.0
    context: tuple[str, ...] = ()
    across_rows: bool = False
    state: str = ""
    used_by: str = ""
    since: str = "0.1.0"
    aliases: tuple[str, ...] = ()

    def check(self, epsilon: float | None, scale_init: float | None) -> None:
        """Check what a slot asks of the norm.

        Raises:
          ChoiceError: if an epsilon is given, or the first factor fixed, and the norm has none.
        """
        if epsilon is not None and self.epsilon is None:
            raise ChoiceError(f"norm_epsilon: norm {self.name!r} has no epsilon")
        names = [p.name for p in self.parameters]
        if scale_init is not None and self.module is None and "scale" not in names:
            raise ChoiceError(
                f"norm: {self.name!r} has no scale, which the arrangement sets to {scale_init} at "
                "first; choose a norm with a scale"
            )

    def build(
        self,
        *,
        name: str | None,
        epsilon: float | None = None,
        scale_init: float | None = None,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        axis_name: str | None = None,
    ) -> nn.Module:
        """Make the module for one slot; None leaves the norm's own default, or name.

        ``axis_name`` is the mapped axis over which a batch is spread; norms by row do not ask.

        Raises:
          ChoiceError: as `check`.
        """
        self.check(epsilon, scale_init)
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "name": name}
        if self.epsilon is not None:
            options["epsilon"] = self.epsilon if epsilon is None else epsilon
        if self.across_rows:
            options["axis_name"] = axis_name
        if scale_init is not None:
            options["scale_init"] = nn.initializers.constant(scale_init - self.scale_offset)
        if self.module is not None:
            return self.module(**options)
        return FunctionNorm(self, **options)


class FunctionNorm(nn.Module):
    """A norm made of a row's function and parameters.

    Attributes:
      spec: the row.
      epsilon: passed to the function; None if it takes none.
      scale_init: in place of the row's for the parameter ``scale``.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
    """

    spec: NormSpec
    epsilon: float | None = None
    scale_init: Callable[..., jax.Array] | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, **context: Any) -> jax.Array:
        """Normalize ``x [..., D]`` over its last axis; ``context`` is what the row asks for."""
        assert self.spec.function is not None
        width = x.shape[-1]
        values = {p.name: self._create(p, width) for p in self.spec.parameters}
        options = context if self.epsilon is None else {"epsilon": self.epsilon, **context}
        if self.dtype is None or x.dtype == jnp.dtype(self.dtype):
            return self.spec.function(x, values, **options)
        # In float32 up to the one cast at the end.
        return self.spec.function(x.astype(statistics_dtype(x)), values, **options).astype(
            self.dtype
        )

    def _create(self, parameter: NormParameter, width: int) -> jax.Array:
        first = parameter.init(width) if callable(parameter.init) else parameter.init
        init = nn.initializers.constant(first)
        if parameter.name == "scale" and self.scale_init is not None:
            init = self.scale_init
        shape = (width,) if parameter.per_feature else ()
        return self.param(parameter.name, init, shape, self.param_dtype)
