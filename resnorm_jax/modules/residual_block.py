"""A residual block around any module: where norm, branch and stream meet."""

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arrangements import DEFAULT, Arrangement, NormSlot, Place
from resnorm_jax.arrangements import get as get_arrangement
from resnorm_jax.modules.norm_catalog import NORMS
from resnorm_jax.modules.norm_table import NormSpec
from resnorm_jax.ops.residual import drop_path
from resnorm_jax.ops.streams import STREAMS, Carry, Scale, StreamParameter

Named = dict[str, jax.Array]


class ResidualBlock(nn.Module):
    """Any shape-keeping module, normalized and added as an arrangement says.

    ::

        h     = norm_before( stream.read(carry) )
        y     = norm_after( branch(h) )
        carry = norm_on_stream( stream.write(carry, dropout(y)) )

    Attributes:
      branch: module called as ``branch(h, *args, **kwargs)``; it keeps the shape of ``h``.
      arrangement: name or row of `resnorm_jax.arrangements`.
      norm: name or row of `resnorm_jax.norms`.
      norm_epsilon: None for the norm's own.
      place: where the block stands, for constants that depend on depth.
      dropout: dropout of the branch's output.
      dtype: dtype of the norms' results; None for that of the input.
      param_dtype: dtype of the parameters.

    A single block has no final norm: the stack that it stands in has (`TransformerEncoder`).

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> block = ResidualBlock(nn.Dense(4), arrangement="post_ln")
    >>> x = jnp.ones((2, 3, 4))
    >>> block.apply(block.init(jax.random.key(0), x), x).shape
    (2, 3, 4)
    """

    branch: nn.Module
    arrangement: str | Arrangement = DEFAULT
    norm: str | NormSpec = "layer"
    norm_epsilon: float | None = None
    place: Place = Place()
    dropout: float = 0.0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __call__(self, x: jax.Array, *args, deterministic: bool = True, **kwargs) -> jax.Array:
        """Run the block on ``x``; further arguments go to the branch."""
        stream = STREAMS.get(get_arrangement(self.arrangement).stream)
        carry, _ = self.update(stream.open(x), *args, deterministic=deterministic, **kwargs)
        return stream.close(carry)

    @nn.compact
    def update(
        self,
        carry: Carry,
        *args,
        skip_scale: Scale | None = None,
        branch_scale: Scale | None = None,
        drop_path_rate: Scale = 0.0,
        shared: Mapping[str, jax.Array] | None = None,
        deterministic: bool = True,
        **kwargs,
    ) -> tuple[Carry, Named]:
        """Read from, and write to, a stream.

        Args:
          carry: the stream's carry.
          *args: passed to the branch.
          skip_scale: in place of the arrangement's rule at ``place``.
          branch_scale: likewise.
          drop_path_rate: probability of dropping the branch of a sample.
          shared: the stream's parameters that a layer's sublayers share.
          deterministic: True turns dropout off.
          **kwargs: passed to the branch.

        Returns:
          The new carry, and what the branch read and wrote by name.
        """
        arrangement = get_arrangement(self.arrangement)
        stream = STREAMS.get(arrangement.stream)
        read = stream.read(carry, shared or {})
        width = read.shape[-1]
        parameters = dict(shared or {})
        for parameter in stream.parameters:
            if parameter.name not in parameters:
                parameters[parameter.name] = declare(self, parameter, width)
        h = self._norm("norm_before", arrangement.norm_before, read)
        if "deterministic" in inspect.signature(type(self.branch).__call__).parameters:
            kwargs["deterministic"] = deterministic
        y = self.branch(h, *args, **kwargs)
        y = self._norm("norm_after", arrangement.norm_after, y)
        written = self._drop(y, drop_path_rate, deterministic)
        carry = stream.write(
            carry,
            written,
            parameters,
            arrangement.skip_scale(self.place) if skip_scale is None else skip_scale,
            arrangement.branch_scale(self.place) if branch_scale is None else branch_scale,
        )
        slot = arrangement.norm_on_stream
        if slot is not None:
            # In the stream's own dtype: a carry that changed its dtype could not be scanned.
            carry = stream.on_stream(
                lambda z: build_norm(self, "norm_on_stream", slot, z.dtype)(z), carry
            )
        return carry, {"branch_in": h, "branch_out": y}

    def _norm(self, name: str, slot: NormSlot | None, x: jax.Array) -> jax.Array:
        return build_norm(self, name, slot)(x) if slot is not None else x

    def _drop(self, y: jax.Array, rate: Scale, deterministic: bool) -> jax.Array:
        y = nn.Dropout(self.dropout)(y, deterministic=deterministic)
        if deterministic or (isinstance(rate, int | float) and rate == 0):
            return y
        return drop_path(y, rate, self.make_rng("dropout"))


def build_norm(module: nn.Module, name: str, slot: NormSlot, dtype: Any = None) -> nn.Module:
    """Make the norm of a slot with the norm, epsilon and dtypes that ``module`` has as fields.

    ``dtype`` stands in place of the module's where it is given.
    """
    fields: Any = module
    return NORMS.get(fields.norm).build(
        name=name,
        epsilon=fields.norm_epsilon,
        scale_init=slot.scale_init,
        dtype=fields.dtype if dtype is None else dtype,
        param_dtype=fields.param_dtype,
    )


def declare(module: nn.Module, parameter: StreamParameter, width: int) -> jax.Array:
    """Create a stream's parameter in ``module``."""
    fields: Any = module
    init = nn.initializers.constant(parameter.init)
    return module.param(parameter.name, init, parameter.shape(width), fields.param_dtype)
