"""Any row of the norms' table as one Flax module."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import as_mask, check_axes, check_numbers, check_real
from resnorm_jax.errors import ChoiceError
from resnorm_jax.norms.layer import Dtype
from resnorm_jax.norms.rows import NORMS
from resnorm_jax.norms.table import NormSpec


class Norm(nn.Module):
    """The norm of a name: `resnorm_jax.norms.names` lists them, ``resnorm show NAME`` explains one.

    Parameters lie where the row's own module has them: ``Norm("layer")`` reads and writes the tree of
    `resnorm_jax.LayerNorm`, hence of flax.linen's.

    Attributes:
      norm: a name of the table, or a row (`resnorm_jax.norms.NormSpec`).
      epsilon: in place of the row's; None for that one.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
      axis_name: mapped axis over which a batch is spread, for norms with statistics over rows.

    Raises:
      ChoiceError: a ValueError, for a name that is not known (the nearest is told), or an epsilon
        where the norm has none.

    >>> import jax, jax.numpy as jnp
    >>> variables = Norm("dyt").init(jax.random.key(0), jnp.ones((2, 4)))
    >>> jax.tree.map(jnp.shape, variables)
    {'params': {'alpha': (), 'bias': (4,), 'scale': (4,)}}
    """

    norm: str | NormSpec = "layer"
    epsilon: float | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    axis_name: str | None = None

    @property
    def spec(self) -> NormSpec:
        """The row."""
        return self.norm if isinstance(self.norm, NormSpec) else NORMS.get(self.norm)

    def setup(self) -> None:
        """Make the row's module, and lie where it would."""
        if self.epsilon is not None and self.spec.epsilon is None:
            raise ChoiceError(f"epsilon: norm {self.spec.name!r} has no epsilon; leave it out")
        self.made = self.spec.build(
            name=None,
            epsilon=self.epsilon,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            axis_name=self.axis_name,
        )
        nn.share_scope(self, self.made)

    def __call__(
        self,
        x: jax.Array,
        *,
        mask: jax.Array | None = None,
        condition: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Normalize ``x [B, ..., D]`` over its last axis.

        Args:
          x: floating point.
          mask: ``[B, L]`` boolean, True where a position is valid. Norms with statistics over rows
            read it; what a norm by row gives at one position does not depend on the others.
          condition: ``[B, C]``, what an adaptive norm adapts to.
          deterministic: False while training, when running statistics move.

        Returns:
          Array of ``x``'s shape.

        Raises:
          ValueError: a condition is given to a norm that reads none, or the reverse.
        """
        spec, mask = self.spec, as_mask("mask", mask)
        check_numbers("x", x)
        check_real("condition", condition)
        check_axes(x=(x, "... D"))
        if condition is not None and "condition" not in spec.context:
            raise ValueError(f"norm {spec.name!r} reads no condition; give it to an adaptive norm")
        told: dict[str, Any] = {
            "mask": mask, "condition": condition, "deterministic": deterministic,
        }  # fmt: skip
        return self.made(x, **{key: told[key] for key in spec.context})
