"""One layer of a Transformer: its sublayers, each a residual block."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import flax.linen as nn
import jax

from resnorm_jax.errors import check_choice
from resnorm_jax.modules.attention import MultiHeadAttention
from resnorm_jax.modules.feed_forward import FeedForward
from resnorm_jax.modules.fields import PLAIN, Context, NormFields, Numerics, apply_norm
from resnorm_jax.modules.hooks import AFTER, hooked
from resnorm_jax.modules.initializers import branch_initializers
from resnorm_jax.modules.residual_block import Named, PlannedBlock
from resnorm_jax.modules.streams import open_stream, own_parameters
from resnorm_jax.ops.activations import ACTIVATIONS, Activation
from resnorm_jax.ops.attention import IMPLEMENTATIONS, Implementation
from resnorm_jax.ops.keys import everywhere
from resnorm_jax.planning import (
    AttentionPlan,
    FeedForwardPlan,
    LayerNumbers,
    LayerPlan,
    SublayerPlan,
)
from resnorm_jax.planning.by_layer import numbers_by_layer
from resnorm_jax.planning.form import PLAIN_FORM, AttentionForm, attention_form, biased_roles
from resnorm_jax.planning.resolve import plan_layer, relative_norm
from resnorm_jax.planning.tree import BranchPlan, Gains, PlannedNorm
from resnorm_jax.schemes import ARRANGEMENTS, DEFAULT
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Carry, Site

# The stream's carry, and the first layer's values by sublayer, for arrangements that mix them in.
Flow = tuple[Carry, dict[str, jax.Array]]


@dataclass(frozen=True)
class LayerOptions:
    """What all layers of a stack share, beside their plan; fields as in `TransformerEncoderLayer`.

    Attributes of its own: ``biases``, the roles whose projections have one, and ``form``.
    """

    heads: int
    mlp_width: int
    activation: Activation
    dropout: float = 0.0
    attention_dropout: float = 0.0
    rotary: bool = False
    biases: frozenset[str] = biased_roles(True)
    form: AttentionForm = PLAIN_FORM
    attention: Implementation | None = None
    numerics: Numerics = PLAIN


@dataclass(frozen=True)
class Given:
    """What one run through layers is given beside the stream.

    Attributes:
      context: ``mask``, ``condition`` and ``deterministic``, for norms and streams that ask.
      attention_mask: of self-attention, broadcasts to ``[B, H, T, T]``, True where a query may look.
      lengths: of self-attention, ``[B]``: how many of a row's first positions may be looked at.
      memory: ``[B, S, D]``, what cross-attention looks at, or None.
      memory_mask: of cross-attention, broadcasts to ``[B, H, T, S]``.
      keep: whether every intermediate is kept.
      weights: whether attention weights are among them.
      relative: of self-attention, ``[2 L - 1, ...]``, the table of relative positions by distance, or
        ``[L, L, ...]`` by pair.
    """

    context: Context
    attention_mask: jax.Array | None = None
    memory: jax.Array | None = None
    memory_mask: jax.Array | None = None
    keep: bool = False
    weights: bool = False
    lengths: jax.Array | None = None
    relative: jax.Array | None = None

    @property
    def deterministic(self) -> bool:
        """Whether dropout is off."""
        return self.context["deterministic"]

    def arguments(self, branch: BranchPlan, numbers: LayerNumbers) -> dict[str, Any]:
        """Return what a branch of a layer is called with, beside its input."""
        told = {"context": self.context, "deterministic": self.deterministic}
        if isinstance(branch, FeedForwardPlan):
            return told
        if self.weights:
            told["return_weights"] = True
        if branch.cross:
            return {**told, "source": self.memory, "mask": self.memory_mask}
        told |= {"mask": self.attention_mask, "lengths": self.lengths, "relative": self.relative}
        if numbers.rotary_base is not None:
            told["rotary_base"] = numbers.rotary_base
        return {**told, "window": numbers.window}


class ParallelBranches(nn.Module):
    """Sublayers that read the same input and are added together.

    Attributes:
      branches: by name.
      plan: of the block.
      numerics: dtypes and axis.
    """

    branches: dict[str, nn.Module]
    plan: SublayerPlan
    numerics: Numerics

    @nn.compact
    def __call__(self, x: jax.Array, given: Given, numbers: LayerNumbers) -> Any:
        """Sum the branches of ``x [B, L, D]``; what else they return comes after the sum."""
        parts, extra = [], []
        for plan in self.plan.branches:
            h = apply_norm(plan.input_norm, x, self.numerics, given.context)
            out = self.branches[plan.name](h, **given.arguments(plan, numbers))
            part, *more = out if isinstance(out, tuple) else (out,)
            parts.append(part)
            extra += more
        total = sum(parts[1:], parts[0])
        return (total, *extra) if extra else total


class PlannedLayer(nn.Module):
    """A layer that executes a plan.

    Attributes:
      place: of the first of like layers.
      sublayers: the plan.
      options: what all layers of the stack share.
    """

    place: Place
    sublayers: tuple[SublayerPlan, ...]
    options: LayerOptions

    @nn.compact
    def __call__(
        self, flow: Flow, numbers: LayerNumbers, given: Given, site: Site
    ) -> tuple[Flow, Named]:
        """Run the layer; see `run_layer`."""
        plan = LayerPlan(self.place, self.sublayers, numbers)
        if self.options.form.by_layer:
            x = self.sublayers[0].stream.view(flow[0])
            given = with_relative(self, x, self.options, None, given)
        (carry, values), named = run_layer(self, plan, self.options, flow, given, site)
        return (hooked(self, AFTER, carry, before=flow[0]), values), named


def run_layer(
    module: nn.Module, plan: LayerPlan, options: LayerOptions, flow: Flow, given: Given, site: Site
) -> tuple[Flow, Named]:
    """Run a layer's sublayers on a stream, inside a module's compact call.

    Args:
      module: it becomes the parent of the blocks.
      plan: of the layer.
      options: what all layers share.
      flow: the stream's carry, and the values that are carried beside it.
      given: masks, memory and context.
      site: of the stack, with the stream's parameters that all layers share.

    Returns:
      The new flow, and every intermediate by name.
    """
    numbers, stream = plan.numbers, plan.sublayers[0].stream
    site = replace(site, layer=numbers.layer, sublayer=plan.place.sublayer)
    site = own_parameters(module, stream, site, options.numerics, "layer")
    carry, values = flow
    named: Named = {}
    for sublayer, own in zip(plan.sublayers, numbers.sublayers, strict=True):
        here = replace(
            site,
            sublayer=own.sublayer,
            position=sublayer.position,
            last=sublayer.last,
            skip_scale=own.skip_scale,
            branch_scale=own.branch_scale,
        )
        name = sublayer.name
        carry, seen = _block(sublayer, own.gains, options)(
            carry,
            _arguments(sublayer, given, values, numbers),
            numbers=own,
            site=here,
            drop_path_rate=numbers.drop_path,
            context=given.context,
        )
        extra = seen.pop("extra")
        if name in values:
            values = {**values, name: extra.pop(0)}
        if given.weights:
            attending = [b.name for b in sublayer.branches if isinstance(b, AttentionPlan)]
            named |= {f"{n}/weights": w for n, w in zip(attending, extra, strict=True)}
        named |= {f"{name}/{key}": value for key, value in seen.items()}
        named[f"{name}/stream"] = sublayer.stream.view(carry)
    return (carry, values), named


def _arguments(
    sublayer: SublayerPlan, given: Given, values: dict[str, jax.Array], numbers: LayerNumbers
) -> dict[str, Any]:
    if len(sublayer.branches) > 1:
        return {"given": given, "numbers": numbers}
    (branch,) = sublayer.branches
    arguments = given.arguments(branch, numbers)
    if branch.name in values:
        arguments |= {"first_values": values[branch.name], "first": numbers.layer == 1}
    return arguments


def _block(sublayer: SublayerPlan, gains: tuple[Gains, ...], options: LayerOptions) -> PlannedBlock:
    # parent=None: the residual block adopts its branch, so parameters lie under the block.
    branches = {
        plan.name: _branch(plan, own, options)
        for plan, own in zip(sublayer.branches, gains, strict=True)
    }
    if len(branches) == 1:
        (branch,) = branches.values()
    else:
        branch = ParallelBranches(branches, sublayer, options.numerics, parent=None)
    return PlannedBlock(branch, sublayer, options.numerics, options.dropout, name=sublayer.name)


def _branch(plan: BranchPlan, gains: Gains, options: LayerOptions) -> nn.Module:
    numerics = options.numerics
    shared: dict[str, Any] = {
        "use_bias": options.biases,
        "plan": plan,
        "kernel_inits": branch_initializers(plan.distribution, plan.roles, gains),
        "dtype": numerics.dtype,
        "param_dtype": numerics.param_dtype,
        "axis_name": numerics.axis_name,
        "parent": None,
    }
    if isinstance(plan, FeedForwardPlan):
        return FeedForward(options.mlp_width, options.activation, options.dropout, **shared)
    # Positions of another sequence are not its own.
    rotary = options.rotary and not plan.cross
    form = replace(options.form, relative=None) if plan.cross else options.form
    return MultiHeadAttention(
        options.heads, options.attention_dropout, rotary, implementation=options.attention,
        form=form, **shared,
    )  # fmt: skip


def with_relative(
    module: nn.Module, x: jax.Array, options: LayerOptions, norm: PlannedNorm | None, given: Given
) -> Given:
    """Return what layers are given, with the table of relative positions, inside a compact call.

    The table is read for each distance, or pair, once, and normalized where its row says so.

    Args:
      module: it keeps the table and its norm.
      x: ``[B, L, D]``.
      options: what all layers share.
      norm: of the table, or None.
      given: what else they are given.
    """
    form, numerics, length = options.form, options.numerics, x.shape[1]
    if form.relative is None:
        return given
    rows, columns = form.table(options.heads, x.shape[-1])
    init = nn.initializers.normal(0.02)
    table = nn.Embed(
        rows, columns, dtype=numerics.dtype or x.dtype, param_dtype=numerics.param_dtype,
        embedding_init=init, name="relative",
    )  # fmt: skip
    at = form.relative.index(length, form.buckets, form.positions)
    read = apply_norm(norm, table(at), numerics, given.context)
    if not form.relative.pairs:
        drop = nn.Dropout(options.dropout, deterministic=given.deterministic)
        drawn = options.dropout > 0 and not given.deterministic
        read = drop(read, rng=everywhere(module.make_rng("dropout")) if drawn else None)
    return replace(given, relative=read)


class LayerFields(NormFields, kw_only=True):
    """What `TransformerEncoderLayer` and stacks of layers share; the fields are described there."""

    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    rotary: bool = False
    use_bias: bool | str = True
    attention: Implementation | None = None
    kv_heads: int | None = None
    head_width: int | None = None
    attention_scale: float | None = None
    causal: bool = False
    window: Any = None
    rotary_base: Any = None
    relative: str | None = None
    relative_buckets: int | None = None
    relative_positions: int | None = None
    relative_by_layer: bool = False

    def form(self, heads: int) -> AttentionForm:
        """Return how the heads of attentions are made."""
        return attention_form(
            heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            scale=self.attention_scale,
            relative=self.relative,
            relative_buckets=self.relative_buckets,
            relative_positions=self.relative_positions,
            relative_by_layer=self.relative_by_layer,
        )

    def options(self, heads: int, mlp_width: int) -> LayerOptions:
        """Return what all layers share, with names resolved."""
        if self.attention is not None:
            check_choice("attention", self.attention, IMPLEMENTATIONS)
        return LayerOptions(
            heads=heads,
            mlp_width=mlp_width,
            activation=ACTIVATIONS.get(self.activation),
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            rotary=self.rotary,
            biases=biased_roles(self.use_bias),
            form=self.form(heads),
            attention=self.attention,
            numerics=self.numerics,
        )


class TransformerLayer(LayerFields):
    """A layer that stands alone; fields as in `TransformerEncoderLayer`."""

    heads: int
    mlp_width: int | None = None
    arrangement: str | Arrangement = DEFAULT
    _: KW_ONLY
    place: Place = Place()

    @property
    def row(self) -> Arrangement:
        """The arrangement as it is in this layer, with the sublayers that the layer has."""
        return ARRANGEMENTS.get(self.arrangement).in_layer(self.place)

    def run(self, x: jax.Array, given: Given) -> jax.Array:
        """Open a stream on ``x [B, L, D]``, run the layer, return what stands for the stream."""
        row, place, width = self.row, self.place, x.shape[-1]
        positional = numbers_by_layer(place.layers, self.window, self.rotary, self.rotary_base)
        plan = plan_layer(
            row, place, self.slot_norms, self.norm_epsilon, self.drop_path,
            positional[place.layer - 1],
        )  # fmt: skip
        site = Site(
            width=width,
            layers=place.layers,
            sublayers=place.sublayers,
            layer=place.layer,
            sublayer=place.sublayer,
            mask=given.context.get("mask"),
            condition=given.context.get("condition"),
        )
        carry, site = open_stream(self, row.stream, x, site, self.numerics, "stack")
        options = self.options(self.heads, self.mlp_width or 4 * width)
        norm = relative_norm(options.form, self.norm_epsilon)
        given = with_relative(self, x, options, norm, given)
        (carry, _), _ = run_layer(self, plan, options, (carry, {}), given, site)
        return row.stream.view(carry)
