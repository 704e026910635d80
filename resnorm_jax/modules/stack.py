"""A stack of layers: segments of like layers, each one compiled body scanned over its depth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from resnorm_jax.arrangements import (
    DEFAULT,
    Arrangement,
    NormSlot,
    Place,
    Segment,
    check_slots,
    plan_layers,
)
from resnorm_jax.arrangements import get as get_arrangement
from resnorm_jax.errors import UserError, check_choice
from resnorm_jax.modules.constants import group_name, kind_of, varying_constants
from resnorm_jax.modules.interventions import WRITES, kept_flags, pass_by, written
from resnorm_jax.modules.layer import Arguments, Flow, TransformerLayer
from resnorm_jax.modules.observe import AFTER, START, observe, observers
from resnorm_jax.modules.residual_block import Named, own_norms, own_parameters, schedule_step
from resnorm_jax.modules.slots import build_norm
from resnorm_jax.ops.streams import STREAMS, Site, Stream

REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
# Collections with a value for each layer: parameters, running statistics, PowerNorm's state, writes.
STACKED = ("params", "batch_stats", "_overwrite_with_gradient", WRITES)
# Slots that a model may fill although the arrangement leaves them empty.
FREE_SLOTS = ("embedding_norm", "value_norm", "heads_norm", "mlp_norm")


def choose(
    arrangement: str | Arrangement,
    norms: Mapping[str, Any],
    stream: str | None = None,
    query_key: str | None = None,
) -> Arrangement:
    """Return the row with what a model sets beside its name.

    Raises:
      UserError: for a norm in a slot that the arrangement does not have, and a model cannot add.
    """
    row = get_arrangement(arrangement)
    check_slots(norms)
    if stream is not None:
        row = replace(row, stream=stream)
    inside = row.inside
    if query_key is not None:
        inside = replace(inside, query_key=query_key)
    added: dict[str, Any] = {slot: NormSlot() for slot in FREE_SLOTS if slot in norms}
    if "embedding_norm" in added:
        row = replace(row, embedding_norm=row.embedding_norm or added.pop("embedding_norm"))
    kept = {slot: getattr(inside, slot, None) or new for slot, new in added.items()}
    return replace(row, inside=replace(inside, **kept))


@dataclass(frozen=True)
class Pass:
    """What one run through a stack is given beside the stream."""

    arguments: Arguments
    context: Mapping[str, Any]
    deterministic: bool
    keep: bool
    weights: bool = False  # keep attention weights too


class TransformerStack(nn.Module):
    """What `TransformerEncoder` and `TransformerDecoder` share; the fields are described there."""

    depth: int
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
    unroll: int = 1
    remat: str = "none"
    remat_every: int = 1
    norms: Mapping[str, Any] = field(default_factory=FrozenDict)
    stream: str | None = None
    query_key: str | None = None
    axis_name: str | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @property
    def beside(self) -> Place:
        """Which stack this is, and how many layers the other has."""
        return Place()

    @property
    def cross_attention(self) -> bool:
        """Whether each layer attends to another sequence too."""
        return False

    def segments(self) -> tuple[Segment, ...]:
        """Return the runs of like layers that this stack is made of."""
        row = choose(self.arrangement, self.norms, self.stream, self.query_key)
        norms = {"default": self.norm, **self.norms}
        return plan_layers(row, self.depth, norms, self.beside, self.cross_attention)

    def run(self, x: jax.Array, given: Pass) -> tuple[jax.Array, Named]:
        """Run all layers on ``x [B, L, D]``, inside a compact call.

        Returns:
          The output, final norm included, and every intermediate by name, stacked ``[N, ...]``.
        """
        return _run(self, x, given)


def _run(stack: Any, x: jax.Array, given: Pass) -> tuple[jax.Array, Named]:
    row = choose(stack.arrangement, stack.norms, stack.stream, stack.query_key)
    stream = STREAMS.get(row.stream)
    segments = stack.segments()
    check_read(stack.norms, segments)
    told = {**given.context, "deterministic": given.deterministic}
    if row.embedding_norm is not None:
        slot, first = row.embedding_norm, segments[0].norms
        x = build_norm(stack, "embedding_norm", slot, told, x.dtype, norms=first)(x)
    site = _stack_site(stack, stream, x, segments, given)
    carry = stream.open(written(stack, "opened", x), site)
    carry = observe(carry, observers(stack, START, carry))
    flow: Flow = (carry, _first_values(row, stack, x, given))
    seen = []
    for number, segment in enumerate(segments):
        name = "layers" if len(segments) == 1 else f"layers_{number}"
        flow, named = _run_segment(stack, name, segment, flow, given, site)
        seen.append(named)
    closing = dict(stream.closing_norms)
    if row.final_norm is not None:
        closing["final_norm"] = row.final_norm
    site = own_norms(stack, closing, site, told, on_stream=False, norms=segments[-1].norms)
    return stream.finish(flow[0], site), _joined(seen)


def _stack_site(
    stack: Any, stream: Stream, x: jax.Array, segments: tuple[Segment, ...], given: Pass
) -> Site:
    site = Site(
        width=x.shape[-1],
        layers=stack.depth,
        sublayers=segments[-1].places[-1].sublayers,
        mask=given.context.get("mask"),
        condition=given.context.get("condition"),
        step=schedule_step(stack, stream),
    )
    return own_parameters(stack, stream, site, "stack")


def _first_values(row: Arrangement, stack: Any, x: jax.Array, given: Pass) -> dict[str, jax.Array]:
    """Room for the first layer's values of each attention, where the arrangement mixes them in."""
    if row.inside.value_residual is None:
        return {}
    names = [g[0] for g in row.order if len(g) == 1 and "attention" in kind_of(g[0])]
    shape = (stack.heads, x.shape[-1] // stack.heads)
    dtype = jnp.promote_types(x.dtype, stack.param_dtype) if stack.dtype is None else stack.dtype
    sources = {n: given.arguments.get(kind_of(n), {}).get("source", x) for n in names}
    return {name: jnp.zeros((*z.shape[:2], *shape), dtype) for name, z in sources.items()}


def _run_segment(
    stack: Any, name: str, segment: Segment, flow: Flow, given: Pass, site: Site
) -> tuple[Flow, Named | None]:
    norms = dict(segment.norms)
    shared = {f: getattr(stack, f) for f in LAYER_FIELDS if f not in ("norm", "norms")}
    layer = TransformerLayer(
        **{**shared, "arrangement": segment.arrangement},
        norm=norms.pop("default"),
        norms=FrozenDict(norms),
        place=segment.places[0],
        name=name,
    )
    view = STREAMS.get(segment.arrangement.stream).view

    def step(layer: TransformerLayer, flow: Flow, varying: Any) -> tuple[Flow, Named | None]:
        varying, observed, kept = varying
        new, named = layer.update(
            flow, given.arguments, varying, context=given.context, step=site.step,
            shared=site.parameters, deterministic=given.deterministic,
            attention_weights=given.weights,
        )  # fmt: skip
        new = (observe(pass_by(new[0], flow[0], kept), observed), new[1])
        return new, ({"stream_in": view(flow[0]), **named} if given.keep else None)

    policy = REMAT[check_choice("remat", stack.remat, REMAT)]
    count, every = len(segment.places), stack.remat_every
    scanned = partial(
        nn.scan,
        variable_axes=dict.fromkeys(STACKED, 0),
        variable_broadcast="schedule",
        split_rngs={"params": True, "dropout": True},
    )
    observed = observers(stack, AFTER + name, flow[0], count)
    kept = kept_flags(stack, name, count)
    varying = (varying_constants(segment, stack.drop_path), observed, kept)
    if policy is None or every == 1 or stack.is_initializing():
        if policy is not None:
            step = nn.remat(step, policy=policy, prevent_cse=False)
        return scanned(step, length=count, unroll=min(stack.unroll, count))(layer, flow, varying)
    return _run_blocks(step, layer, flow, varying, scanned, policy, count, every)


def _run_blocks(step, layer, flow, varying, scanned, policy, count: int, every: int):
    """Scan over blocks of ``every`` layers, each computed again as a whole going backward."""
    check_blocks(count, every)

    def cut(tree: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(-1, every, *a.shape[1:]), tree)

    def join(tree: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)

    def block(layer, flow, varying):
        inner = nn.remat(step, policy=policy, prevent_cse=False)
        return scanned(inner, length=every)(layer, flow, varying)

    outer = scanned(nn.remat(block, policy=policy, prevent_cse=False), length=count // every)
    mapped = nn.map_variables(outer, STACKED, trans_in_fn=cut, trans_out_fn=join, mutable=True)
    flow, named = mapped(layer, flow, cut(varying))
    return flow, join(named)


def check_blocks(count: int, every: int) -> None:
    """Raise UserError if ``count`` like layers cannot be cut into blocks of ``every``."""
    if count % every:
        near = min((n for n in range(1, count + 1) if count % n == 0), key=lambda n: abs(n - every))
        raise UserError(
            f"config.model.remat_every: {every} does not divide {count} layers; try {near}"
        )


def check_read(norms: Mapping[str, Any], segments: tuple[Segment, ...]) -> None:
    """Raise UserError for a norm in a slot that no layer has."""
    for slot in set(norms) & {"norm_before", "norm_after", "norm_on_stream", "final_norm"}:
        rows = [s.arrangement for s in segments]
        each = [row.at(group_name(group)) for row in rows for group in row.order]
        if not any(getattr(row, slot) for row in each):
            raise UserError(
                f"config.model.{slot}: not read: arrangement {rows[0].name!r} has no norm there"
            )
    for slot, needs in (("query_key_norm", ("head", "full")), ("parallel_norm", ())):
        insides = [s.arrangement.inside for s in segments]
        if slot in norms and not any(
            i.query_key in needs if needs else i.parallel_norm for i in insides
        ):
            raise UserError(f"config.model.{slot}: not read: no norm stands there")


def _joined(seen: list[Named | None]) -> Named:
    if seen[0] is None:
        return {}
    parts = [named for named in seen if named is not None]
    # Layers with other sublayers have other names: each has an entry for the layers that have it.
    names = dict.fromkeys(name for named in parts for name in named)
    return {name: jnp.concatenate([n[name] for n in parts if name in n]) for name in names}


LAYER_FIELDS = set(TransformerLayer.__dataclass_fields__) - {"parent", "name", "place"}
