"""A stack of layers: segments of like layers, each one compiled body scanned over its depth."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.modules.fields import make_norm
from resnorm_jax.modules.hooks import COLLECTIONS, OPENED, START, hooked
from resnorm_jax.modules.layer import Flow, Given, LayerFields, PlannedLayer, with_relative
from resnorm_jax.modules.residual_block import Named
from resnorm_jax.modules.streams import open_stream, own_norms
from resnorm_jax.planning import AttentionPlan, LayerNumbers, Plan, Segment, plan
from resnorm_jax.planning.remat import REMAT
from resnorm_jax.planning.unroll import AUTO, Unroll, choose_unroll
from resnorm_jax.schemes import DEFAULT
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.spec import Arrangement
from resnorm_jax.schemes.stream import Site

# Collections with a value for each layer: parameters, running statistics, PowerNorm's state, hooks.
STACKED = ("params", "batch_stats", "_overwrite_with_gradient", *COLLECTIONS)


class TransformerStack(LayerFields):
    """What `TransformerEncoder` and `TransformerDecoder` share; the fields are described there."""

    depth: int
    heads: int
    mlp_width: int | None = None
    arrangement: str | Arrangement = DEFAULT
    _: KW_ONLY
    unroll: Unroll = AUTO
    remat: str = "none"
    remat_every: int = 1
    stream: str | None = None
    query_key: str | None = None
    layer_groups: int | None = None

    @property
    def beside(self) -> Place:
        """Which stack this is, and how many layers the other has."""
        return Place()

    @property
    def cross_attention(self) -> bool:
        """Whether each layer attends to another sequence too."""
        return False

    def plan(self, width: int) -> Plan:
        """Return the plan that this stack executes on streams of a width.

        Raises:
          ChoiceError: naming the field that does not fit.
        """
        return plan(
            self.arrangement,
            self.depth,
            width=width,
            heads=self.heads,
            mlp_width=self.mlp_width,
            norm=self.norm,
            norms=self.norms,
            norm_epsilon=self.norm_epsilon,
            stream=self.stream,
            query_key=self.query_key,
            activation=self.activation,
            use_bias=self.use_bias,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            attention_scale=self.attention_scale,
            window=self.window,
            rotary=self.rotary,
            rotary_base=self.rotary_base,
            relative=self.relative,
            relative_buckets=self.relative_buckets,
            relative_positions=self.relative_positions,
            relative_by_layer=self.relative_by_layer,
            drop_path=self.drop_path,
            remat=self.remat,
            remat_every=self.remat_every,
            stack=self.beside,
            cross_attention=self.cross_attention,
            layer_groups=self.layer_groups,
        )

    @property
    def layers_a_step(self) -> int:
        """How many layers stand in each step of the loop, on JAX's default backend."""
        return choose_unroll(self.unroll, self.depth, self.remat)

    def segments(self) -> tuple[Segment, ...]:
        """Return the runs of like layers that this stack is made of; they depend on no width."""
        return self.plan(self.heads).segments

    def run(self, x: jax.Array, given: Given) -> tuple[jax.Array, Named]:
        """Run all layers on ``x [B, L, D]``, inside a compact call.

        Returns:
          The output, final norm included, and every intermediate by name, stacked ``[N, ...]``.
        """
        plan, told = self.plan(x.shape[-1]), given.context
        if plan.embedding_norm is not None:
            x = make_norm(plan.embedding_norm, self.numerics, told, x.dtype)(x)
        site = Site(
            width=x.shape[-1],
            layers=plan.depth,
            sublayers=plan.sublayers,
            mask=told.get("mask"),
            condition=told.get("condition"),
        )
        options = self.options(plan.heads, plan.mlp_width)
        if not plan.form.by_layer:
            given = with_relative(self, x, options, plan.relative_norm, given)
        x = hooked(self, OPENED, x)
        carry, site = open_stream(self, plan.stream, x, site, self.numerics, "stack")
        carry = hooked(self, START, carry)
        flow: Flow = (carry, self._first_values(plan, x))
        seen = []
        for segment in plan.segments:
            flow, named = self._run_segment(plan, segment, flow, given, site)
            seen.append(named)
        norms = [norm for norm in (*plan.closing_norms, plan.final_norm) if norm is not None]
        site = own_norms(norms, site, self.numerics, told, on_stream=False)
        return plan.stream.finish(flow[0], site), _joined(seen)

    def _first_values(self, plan: Plan, x: jax.Array) -> dict[str, jax.Array]:
        """Room for the first layer's values of each attention, where the arrangement mixes them in."""
        branches = [s.branches[0] for s in plan.segments[0].sublayers]
        shape = plan.form.shape("value", self.heads, x.shape[-1])
        dtype = jnp.promote_types(x.dtype, self.param_dtype) if self.dtype is None else self.dtype
        mixing = [
            b for b in branches if isinstance(b, AttentionPlan) and b.value_residual is not None
        ]
        return {b.name: jnp.zeros((*x.shape[:2], *shape), dtype) for b in mixing}

    def _run_segment(
        self, plan: Plan, segment: Segment, flow: Flow, given: Given, site: Site
    ) -> tuple[Flow, Named | None]:
        layer = PlannedLayer(
            segment.layers[0].place,
            segment.sublayers,
            self.options(plan.heads, plan.mlp_width),
            name=segment.name,
        )
        fill, varying = split_numbers(segment)
        view = plan.stream.view

        def step(layer: PlannedLayer, flow: Flow, varying: Any) -> tuple[Flow, Named | None]:
            new, named = layer(flow, fill(varying), given, site)
            return new, ({"stream_in": view(flow[0]), **named} if given.keep else None)

        policy = REMAT[self.remat]
        count, every = segment.sets, self.remat_every
        unroll = min(self.layers_a_step, len(segment.layers))
        if self.is_initializing():  # all layers alike: a loop compiles faster
            unroll = 1
        scanned = partial(
            nn.scan,
            variable_axes=dict.fromkeys(STACKED, 0),
            variable_broadcast="schedule",
            split_rngs={"params": True, "dropout": True},
        )
        if policy is None or every == 1 or self.is_initializing():
            if policy is not None:
                # Unrolled, XLA would take what was computed before in place of computing it again.
                step = nn.remat(step, policy=policy, prevent_cse=unroll > 1)
            if segment.repeats > 1:
                return _run_shared(step, layer, flow, varying, scanned, segment, unroll)
            return scanned(step, length=count, unroll=unroll)(layer, flow, varying)
        return _run_blocks(step, layer, flow, varying, scanned, policy, count, every)


def split_numbers(
    segment: Segment,
) -> tuple[Callable[[list[jax.Array]], LayerNumbers], list[jax.Array]]:
    """Return a segment's numbers that vary, each stacked to ``[N]``, and how a layer gets all of them.

    Numbers that are equal in all layers stay Python numbers in the compiled body, where a factor of 1
    costs nothing.
    """
    rows = [jax.tree.leaves(layer.numbers) for layer in segment.layers]
    structure = jax.tree.structure(segment.layers[0].numbers)
    columns = list(zip(*rows, strict=True))
    varies = [len(set(column)) > 1 for column in columns]
    stacked = [
        jnp.asarray(column, jnp.int32 if isinstance(column[0], int) else jnp.float32)
        for column, differs in zip(columns, varies, strict=True)
        if differs
    ]

    def fill(varying: list[jax.Array]) -> LayerNumbers:
        own = iter(varying)
        leaves = [
            next(own) if differs else column[0]
            for column, differs in zip(columns, varies, strict=True)
        ]
        return jax.tree.unflatten(structure, leaves)

    return fill, stacked


def _run_blocks(step, layer, flow, varying, scanned, policy, count: int, every: int):
    """Scan over blocks of ``every`` layers, each computed again as a whole going backward."""

    def block(layer, flow, varying):
        inner = nn.remat(step, policy=policy, prevent_cse=False)
        return scanned(inner, length=every)(layer, flow, varying)

    outer = scanned(nn.remat(block, policy=policy, prevent_cse=False), length=count // every)
    return _nested(outer, STACKED, layer, flow, varying, every)


def _run_shared(step, layer, flow, varying, scanned, segment: Segment, unroll: int):
    """Scan over the sets of parameters, and inside over the layers that share one."""
    sets, repeats = segment.sets, segment.repeats
    if layer.is_initializing():  # a set begins as its first layer would alone
        scanned(step, length=sets)(layer, flow, [numbers[::repeats] for numbers in varying])

    def of_set(layer, flow, varying):
        inner = nn.scan(
            step,
            variable_axes=dict.fromkeys(COLLECTIONS, 0),
            variable_broadcast=("params", "schedule"),
            split_rngs={"params": False, "dropout": True},
            length=repeats,
            unroll=min(unroll, repeats),
        )
        return inner(layer, flow, varying)

    return _nested(
        scanned(of_set, length=sets, unroll=max(1, unroll // repeats)),
        COLLECTIONS, layer, flow, varying, repeats,
    )  # fmt: skip


def _nested(outer, collections, layer, flow, varying, size: int):
    """Run a scan over blocks of ``size`` layers, some of whose collections have a value a layer."""

    def cut(tree: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), tree)

    def join(tree: Any) -> Any:
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), tree)

    mapped = nn.map_variables(outer, collections, trans_in_fn=cut, trans_out_fn=join, mutable=True)
    flow, named = mapped(layer, flow, cut(varying))
    return flow, join(named)


def _joined(seen: list[Named | None]) -> Named:
    if seen[0] is None:
        return {}
    parts = [named for named in seen if named is not None]
    # Layers with other sublayers have other names: each has an entry for the layers that have it.
    names = dict.fromkeys(name for named in parts for name in named)
    return {name: jnp.concatenate([n[name] for n in parts if name in n]) for name in names}
