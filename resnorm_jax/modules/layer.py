"""One layer of a Transformer: its sublayers, each a residual block of one arrangement."""

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from resnorm_jax.arrangements import DEFAULT, Arrangement, NormSlot, Place
from resnorm_jax.arrangements import get as get_arrangement
from resnorm_jax.modules.attention import MultiHeadAttention
from resnorm_jax.modules.constants import Constants, group_name, kind_of, layer_constants
from resnorm_jax.modules.feed_forward import FeedForward
from resnorm_jax.modules.initializers import branch_initializers
from resnorm_jax.modules.residual_block import (
    Named,
    ResidualBlock,
    open_stream,
    own_parameters,
    site_of,
)
from resnorm_jax.modules.slots import Context, build_norm
from resnorm_jax.ops.streams import STREAMS, Carry

# The stream's carry, and the first layer's values by sublayer, for arrangements that mix them in.
Flow = tuple[Carry, dict[str, jax.Array]]
# What a sublayer of each kind is given beside its input.
Arguments = Mapping[str, Mapping[str, Any]]


class ParallelBranches(nn.Module):
    """Sublayers that read the same input and are added together.

    Attributes:
      branches: by name.
      slot: norm of each branch's input, or None where they share the block's.
      norm: as in `ResidualBlock`, like the fields below.
    """

    branches: Mapping[str, nn.Module]
    slot: NormSlot | None = None
    norm: Any = "layer"
    norms: Mapping[str, Any] = field(default_factory=FrozenDict)
    norm_epsilon: float | None = None
    axis_name: str | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        arguments: Mapping[str, Mapping[str, Any]],
        *,
        context: Context,
        deterministic: bool = True,
    ) -> Any:
        """Sum the branches of ``x [B, L, D]``; what else they return comes after the sum."""
        parts, extra = [], []
        for name, branch in self.branches.items():
            h = x
            if self.slot is not None:
                slot_name = "parallel_norm"
                h = build_norm(self, f"{name}_norm", self.slot, context, slot_name=slot_name)(x)
            out = branch(h, **arguments[name], context=context, deterministic=deterministic)
            part, *more = out if isinstance(out, tuple) else (out,)
            parts.append(part)
            extra += more
        total = sum(parts[1:], parts[0])
        return (total, *extra) if extra else total


class TransformerLayer(nn.Module):
    """The sublayers of one layer; fields as in `TransformerEncoderLayer`, which see."""

    heads: int
    mlp_width: int | None = None
    arrangement: str | Arrangement = DEFAULT
    norm: Any = "layer"
    norm_epsilon: float | None = None
    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    rotary: bool = False
    use_bias: bool = True
    place: Place = Place()
    norms: Mapping[str, Any] = field(default_factory=FrozenDict)
    axis_name: str | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @property
    def row(self) -> Arrangement:
        """The arrangement, with the sublayers that this layer has."""
        return get_arrangement(self.arrangement)

    @nn.compact
    def update(
        self,
        flow: Flow,
        arguments: Arguments,
        varying: Constants,
        *,
        context: Context,
        step: float | jax.Array = 0.0,
        shared: Mapping[str, jax.Array] | None = None,
        fresh: bool = False,
        deterministic: bool = True,
        attention_weights: bool = False,
    ) -> tuple[Flow, Named]:
        """Read from, and write to, a stream.

        Args:
          flow: the stream's carry, and the values that are carried beside it.
          arguments: kind of sublayer to keyword arguments of its module.
          varying: constants of this place, in place of those that ``place`` gives.
          context: mask and condition, for norms and streams that ask.
          step: updates done, for streams that change over training.
          shared: the stream's parameters that all layers share.
          fresh: whether the carry is an input that the stream has yet to open, for a layer alone.
          deterministic: True turns dropout off.
          attention_weights: whether they are among the intermediates, as ``attention/weights``.

        Returns:
          The new flow, and every intermediate by name.
        """
        arrangement = self.row
        stream = STREAMS.get(arrangement.stream)
        constants: Any = {**layer_constants(arrangement, self.place, self.drop_path), **varying}
        carry, values = flow
        width = (carry if fresh else stream.view(carry)).shape[-1]
        site = site_of(arrangement, self.place, width, context)
        site = replace(site, step=step, layer=constants["layer"], parameters=shared or {})
        if fresh:
            carry, site = open_stream(self, stream, carry, site, "stack")
        site = own_parameters(self, stream, site, "layer")
        named: Named = {}
        for position, group in enumerate(arrangement.order):
            name = group_name(group)
            here = replace(
                site,
                sublayer=constants["sublayer"] + position,
                position=position,
                last=position == len(arrangement.order) - 1,
                skip_scale=constants[f"{name}/skip_scale"],
                branch_scale=constants[f"{name}/branch_scale"],
            )
            carry, seen = self._block(arrangement.at(name), group, constants, width).update(
                carry,
                **self._arguments(group, arguments, values, constants, attention_weights),
                site=here,
                read_scale=constants[f"{name}/read_scale"],
                drop_path_rate=constants["drop_path"],
                context=context,
                deterministic=deterministic,
            )
            extra = seen.pop("extra")
            if group[0] in values:
                values = {**values, group[0]: extra.pop(0)}
            if attention_weights:
                attending = [n for n in group if "attention" in kind_of(n)]
                named |= {f"{n}/weights": w for n, w in zip(attending, extra, strict=True)}
            named |= {f"{name}/{key}": value for key, value in seen.items()}
            named[f"{name}/stream"] = stream.view(carry)
        return (carry, values), named

    def _arguments(
        self,
        group: tuple[str, ...],
        arguments: Arguments,
        values: Mapping,
        constants: Constants,
        weights: bool,
    ) -> dict[str, Any]:
        each = {name: dict(arguments.get(kind_of(name), {})) for name in group}
        for name in group:
            if weights and "attention" in kind_of(name):
                each[name]["return_weights"] = True
        if len(group) > 1:
            return {"arguments": each}
        name = group[0]
        if name in values:
            each[name] |= {"first_values": values[name], "first": constants["layer"] == 0}
        return each[name]

    def _block(
        self, row: Arrangement, group: tuple[str, ...], constants: Constants, width: int
    ) -> ResidualBlock:
        fields: dict[str, Any] = {
            "norm": self.norm,
            "norms": self.norms,
            "norm_epsilon": self.norm_epsilon,
            "axis_name": self.axis_name,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        # parent=None: the residual block adopts its branch, so parameters lie under the block.
        fields_inside = {**fields, "inside": row.inside, "use_bias": self.use_bias, "parent": None}
        branches = {
            name: self._branch(name, row, constants, width, fields_inside) for name in group
        }
        if len(group) == 1:
            branch: nn.Module = branches[group[0]]
        else:
            slot = row.inside.parallel_norm
            branch = ParallelBranches(branches, slot, **fields, parent=None)
        return ResidualBlock(branch, row, dropout=self.dropout, **fields, name=group_name(group))

    def _branch(
        self, name: str, row: Arrangement, constants: Constants, width: int, fields: Any
    ) -> nn.Module:
        start = f"{name}/gain/"
        gains = {k.removeprefix(start): g for k, g in constants.items() if k.startswith(start)}
        fields = {**fields, "kernel_inits": branch_initializers(row.init, gains)}
        if kind_of(name) == "feed_forward":
            return FeedForward(self.mlp_width or 4 * width, self.activation, self.dropout, **fields)
        rotary = self.rotary and kind_of(name) == "attention"
        return MultiHeadAttention(self.heads, self.attention_dropout, rotary, **fields)
