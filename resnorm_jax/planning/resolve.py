"""From a row, the norms, the depth and the options to a plan. All checks of a model's choices."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from typing import Any

from resnorm_jax.errors import ChoiceError, nearest
from resnorm_jax.ops.activations import ACTIVATIONS
from resnorm_jax.planning.by_layer import numbers_by_layer
from resnorm_jax.planning.form import AttentionForm, attention_form, biased_roles
from resnorm_jax.planning.norms import SlotNorms, by_depth, check_slots, find
from resnorm_jax.planning.remat import check_blocks, check_remat
from resnorm_jax.planning.sharing import check_sharing, times_in_a_row
from resnorm_jax.planning.tree import (
    AttentionPlan,
    BranchPlan,
    FeedForwardPlan,
    LayerNumbers,
    LayerPlan,
    Plan,
    PlannedNorm,
    Segment,
    SublayerNumbers,
    SublayerPlan,
)
from resnorm_jax.schemes import ARRANGEMENTS, DEFAULT, STREAMS
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.query_key import QUERY_KEY
from resnorm_jax.schemes.slots import NORM
from resnorm_jax.schemes.spec import Arrangement, Branch, Group
from resnorm_jax.sizes import check_sizes

# Slots that a model may fill although the arrangement leaves them empty.
FREE_SLOTS = ("embedding_norm", "value_norm", "heads_norm", "mlp_norm")
PARALLEL = "parallel"


def plan(
    arrangement: str | Arrangement = DEFAULT,
    depth: int = 3,
    *,
    width: int = 64,
    heads: int = 4,
    mlp_width: int | None = None,
    norm: Any = "layer",
    norms: Mapping[str, Any] | None = None,
    norm_epsilon: float | None = None,
    stream: str | None = None,
    query_key: str | None = None,
    activation: str = "gelu",
    use_bias: bool | str = True,
    kv_heads: int | None = None,
    head_width: int | None = None,
    attention_scale: float | None = None,
    window: Any = None,
    rotary: bool = False,
    rotary_base: Any = None,
    relative: str | None = None,
    relative_buckets: int | None = None,
    relative_positions: int | None = None,
    relative_by_layer: bool = False,
    drop_path: float = 0.0,
    remat: str = "none",
    remat_every: int = 1,
    stack: Place | None = None,
    cross_attention: bool = False,
    layer_groups: int | None = None,
) -> Plan:
    """Resolve a stack of layers into everything that decides what it computes.

    Args:
      arrangement: name or row of `resnorm_jax.arrangements`.
      depth: N, number of layers.
      width: D.
      heads: attention heads.
      mlp_width: width inside the feed-forward networks; None for 4 times the width.
      norm: name or row of `resnorm_jax.norms`; or one for each layer: a sequence, a text such as
        ``"layer*2+rms"`` (two layers, then the rest), or a function of the `Place`.
      norms: slot to norm, in place of ``norm`` there; ``"attention/norm_before"`` is that slot of one
        sublayer. A norm for a slot of `FREE_SLOTS` puts one there if the arrangement has none.
      norm_epsilon: None for each norm's own.
      stream: name of a residual scheme, in place of the arrangement's.
      query_key: what is done to queries and keys, in place of the arrangement's.
      activation: of the feed-forward networks.
      use_bias: which projections have a bias, as in `TransformerEncoder`; so are all down to
        ``relative_positions``.
      kv_heads: heads of keys and values.
      head_width: features of a head.
      attention_scale: factor on the products of queries and keys.
      window: how far a query sees to either side, by layer.
      rotary: whether positions enter by rotation.
      rotary_base: of it, by layer.
      relative: how relative positions enter.
      relative_buckets: of their table.
      relative_positions: distance from which they are alike.
      relative_by_layer: whether each layer has such a table of its own.
      drop_path: drop rate at the last layer; ``l / N`` of it at layer l (Huang et al. 2016, eq. 4).
      remat: what the backward pass computes again.
      remat_every: layers between two carries that are kept, with ``remat``.
      stack: a place whose ``stack`` and ``other`` say what stands beside; None for a stack alone.
      cross_attention: whether cross-attention follows each group with self-attention.
      layer_groups: how many layers have parameters of their own, as in `TransformerEncoder`.

    Raises:
      ChoiceError: naming the field, the value and the likely fix.

    >>> print(plan("deepnorm", depth=8).layer(8).numbers.sublayers[0].skip_scale)
    2.0
    """
    check_sizes(
        depth=depth,
        width=width,
        heads=heads,
        mlp_width=mlp_width,
        norm_epsilon=norm_epsilon,
        drop_path=drop_path,
        layer_groups=layer_groups,
    )
    given = {"default": norm, **(norms or {})}
    row, read = choose(arrangement, given, stream, query_key), {"default"}
    check_remat(remat, remat_every)
    function = _named(ACTIVATIONS, "activation", activation)
    form = attention_form(
        heads, kv_heads=kv_heads, head_width=head_width, scale=attention_scale, relative=relative,
        relative_buckets=relative_buckets, relative_positions=relative_positions,
        relative_by_layer=relative_by_layer,
    )  # fmt: skip
    _check_query_key(row, form, heads)
    positional = numbers_by_layer(depth, window, rotary, rotary_base)
    layers = _rows_by_layer(row, depth, stack or Place(), cross_attention)
    chosen = by_depth(given, [place for place, _ in layers])
    segments: list[Segment] = []
    repeats = times_in_a_row(depth, layer_groups, remat_every)
    runs = [
        list(run)
        for _, run in groupby(
            zip(layers, chosen, strict=True), key=lambda item: (item[0][1], item[1])
        )
    ]
    for number, run in enumerate(runs):
        name = "layers" if len(runs) == 1 else f"layers_{number}"
        (_, like), slots = run[0]
        table = SlotNorms(slots, norm_epsilon, read)
        sublayers = plan_sublayers(like, table)
        like_ones = tuple(
            LayerPlan(
                place,
                sublayers,
                replace(layer_numbers(like, place, drop_path), **positional[place.layer - 1]),
            )
            for (place, _), _ in run
        )
        check_blocks(len(like_ones), remat_every)
        segment = Segment(name, like_ones, repeats)
        check_sharing(segment)
        segments.append(segment)
    first, last = (SlotNorms(chosen[n], norm_epsilon, read) for n in (0, -1))
    planned = Plan(
        row=row,
        depth=depth,
        segments=tuple(segments),
        embedding_norm=first.at("embedding_norm", row.embedding_norm),
        final_norm=last.at("final_norm", row.final_norm),
        closing_norms=tuple(last.own(n, slot) for n, slot in row.stream.closing_norms.items()),
        width=width,
        heads=heads,
        mlp_width=mlp_width or 4 * width,
        activation=function,
        biases=biased_roles(use_bias),
        form=form,
        relative_norm=relative_norm(form, norm_epsilon),
    )
    _check_read(row, [like for _, like in layers], given, read)
    return planned


def choose(
    arrangement: str | Arrangement,
    norms: Mapping[str, Any],
    stream: str | None = None,
    query_key: str | None = None,
) -> Arrangement:
    """Return the row with what a model sets beside its name."""
    row = _named(ARRANGEMENTS, "arrangement", arrangement)
    if stream is not None:
        row = replace(row, stream=_named(STREAMS, "stream", stream))
    inside = row.inside
    if query_key is not None:
        inside = replace(inside, query_key=_named(QUERY_KEY, "query_key", query_key).name)
    added = {slot: NORM for slot in FREE_SLOTS if slot in norms}
    if added.pop("embedding_norm", None):
        row = replace(row, embedding_norm=row.embedding_norm or NORM)
    kept = {slot: getattr(inside, slot) or new for slot, new in added.items()}
    return replace(row, inside=replace(inside, **kept))


def _named(table: Any, field: str, name: Any) -> Any:
    """Return a row of a table; its error names the field."""
    try:
        return table.get(name)
    except ValueError as error:
        raise ChoiceError(f"{field}: {str(error).partition(': ')[2]}") from None


def _rows_by_layer(
    row: Arrangement, depth: int, stack: Place, cross_attention: bool
) -> list[tuple[Place, Arrangement]]:
    """Return the place of each layer, whose sublayers count from it, and the row as it is there."""
    base = replace(stack, layers=depth)
    rows = [row.in_layer(replace(base, layer=n + 1)) for n in range(depth)]
    if cross_attention:
        rows = [with_cross_attention(row) for row in rows]
    ends = list(accumulate(len(row.order) for row in rows))
    return [
        (replace(base, layer=n + 1, sublayer=end - len(row.order) + 1, sublayers=ends[-1]), row)
        for n, (row, end) in enumerate(zip(rows, ends, strict=True))
    ]


def with_cross_attention(row: Arrangement) -> Arrangement:
    """Return the row with cross-attention after each group that has self-attention."""
    order: list[Group] = []
    for group in row.order:
        order.append(group)
        order += [(Branch("cross_attention", b.number),) for b in group if b.kind == "attention"]
    return replace(row, order=tuple(order))


def plan_sublayers(row: Arrangement, norms: SlotNorms) -> tuple[SublayerPlan, ...]:
    """Return what a layer of a row is made of."""
    return tuple(
        plan_sublayer(
            row.at(group),
            norms,
            group,
            position=position,
            last=position == len(row.order),
        )
        for position, group in enumerate(row.order, 1)
    )


def plan_sublayer(
    row: Arrangement, norms: SlotNorms, group: Group = (), **where: Any
) -> SublayerPlan:
    """Return a residual block of a row; of no branches where ``group`` names none.

    Args:
      row: as it is at this sublayer.
      norms: which norm stands in which slot.
      group: its branches.
      **where: ``position`` and ``last``, as in `SublayerPlan`.
    """
    name = group_name(group)
    here = norms.within(name)
    return SublayerPlan(
        name=name,
        stream=row.stream,
        branches=tuple(_plan_branch(row, b, norms.within(b.name), len(group) > 1) for b in group),
        norm_before=here.at("norm_before", row.norm_before),
        norm_after=here.at("norm_after", row.norm_after),
        norm_on_stream=here.at("norm_on_stream", row.norm_on_stream),
        stream_norms=tuple(here.own(n, slot) for n, slot in row.stream.norms.items()),
        **where,
    )


def plan_block(
    row: Arrangement, place: Place, norms: Mapping[str, Any], epsilon: float | None
) -> SublayerPlan:
    """Return a residual block that stands alone, around any module."""
    check_slots(norms)
    check_sizes(norm_epsilon=epsilon)
    per_layer = max(1, place.sublayers // place.layers)
    position = (place.sublayer - 1) % per_layer + 1
    table = SlotNorms(norms, epsilon)
    return plan_sublayer(row, table, position=position, last=position == per_layer)


def relative_norm(form: AttentionForm, epsilon: float | None) -> PlannedNorm | None:
    """Return the norm of the table of relative positions, or None where there is none."""
    if form.relative is None or form.relative.norm is None:
        return None
    return PlannedNorm("relative_norm", find("relative", form.relative.norm), epsilon)


def _check_query_key(row: Arrangement, form: AttentionForm, heads: int) -> None:
    """Raise ChoiceError where what is done to queries and keys does not fit the form of heads."""
    query_key = _named(QUERY_KEY, "query_key", row.inside.query_key)
    if query_key.alike and form.kv_heads not in (None, heads):
        raise ChoiceError(
            f"query_key: {query_key.name!r} has one parameter for a head of queries and its keys; "
            "leave kv_heads out"
        )


def plan_layer(
    row: Arrangement,
    place: Place,
    norms: Mapping[str, Any],
    epsilon: float | None,
    drop_path: float,
    positional: Mapping[str, Any] | None = None,
) -> LayerPlan:
    """Return a layer that stands alone; ``positional`` as of `numbers_by_layer`, of this layer."""
    check_slots(norms)
    check_sizes(norm_epsilon=epsilon, drop_path=drop_path)
    sublayers = plan_sublayers(row, SlotNorms(norms, epsilon))
    numbers = replace(layer_numbers(row, place, drop_path), **(positional or {}))
    return LayerPlan(place, sublayers, numbers)


def _plan_branch(row: Arrangement, branch: Branch, norms: SlotNorms, several: bool) -> BranchPlan:
    inside, name, kind = row.inside, branch.name, branch.kind
    input_norm = inside.parallel_norm if several else None
    common: dict[str, Any] = {
        "name": name,
        "distribution": row.init.distribution,
        "input_norm": norms.at("parallel_norm", input_norm, f"{name}_norm"),
    }
    if kind == "feed_forward":
        return FeedForwardPlan(
            mlp_norm=norms.at("mlp_norm", inside.mlp_norm), mlp_scale=inside.mlp_scale, **common
        )
    query_key = _named(QUERY_KEY, "query_key", inside.query_key)
    slot = inside.query_key_norm if query_key.norms else None
    cross = kind == "cross_attention"
    return AttentionPlan(
        cross=cross,
        query_key=query_key,
        query_norm=norms.at("query_key_norm", slot, "query_norm"),
        key_norm=norms.at("query_key_norm", slot, "key_norm"),
        value_norm=norms.at("value_norm", inside.value_norm),
        heads_norm=norms.at("heads_norm", inside.heads_norm),
        head_scale=inside.head_scale,
        # Of self-attention alone, as in its paper: what is looked at across is one for all layers.
        value_residual=None if several or cross else inside.value_residual,
        shaped=inside.shaped,
        **common,
    )


def layer_numbers(row: Arrangement, place: Place, drop_path: float) -> LayerNumbers:
    """Return a layer's numbers; its sublayers count from ``place.sublayer``."""
    return LayerNumbers(
        layer=place.layer,
        drop_path=drop_path * place.layer / place.layers,
        sublayers=tuple(
            sublayer_numbers(
                row.at(group),
                replace(place, sublayer=place.sublayer + offset),
                group,
            )
            for offset, group in enumerate(row.order)
        ),
    )


def sublayer_numbers(row: Arrangement, place: Place, group: Group = ()) -> SublayerNumbers:
    """Return a sublayer's numbers: the rules of a row evaluated at a place."""
    roles = [
        FeedForwardPlan.roles if branch.kind == "feed_forward" else AttentionPlan.roles
        for branch in group
    ]
    return SublayerNumbers(
        sublayer=place.sublayer,
        read_scale=row.read_scale(place),
        skip_scale=row.skip_scale(place),
        branch_scale=row.branch_scale(place),
        gains=tuple(
            {role: row.init.gains[role](place) for role in own if role in row.init.gains}
            for own in roles
        ),
    )


def _check_read(
    row: Arrangement, rows: Sequence[Arrangement], norms: Mapping[str, Any], read: set[str]
) -> None:
    """Raise ChoiceError for a norm that nothing read, or one of a sublayer that is not there."""
    groups = {group for row in rows for group in row.order}
    names = {b.name for group in groups for b in group} | {group_name(group) for group in groups}
    for key in norms:
        block = key.rpartition("/")[0]
        if block and block not in names:
            raise ChoiceError(f"norms: {key!r}: no sublayer {block!r}; {nearest(block, names)}")
        if key not in read:
            raise ChoiceError(
                f"{key}: not read: arrangement {row.name!r} has no norm there, or one of its own"
            )


def group_name(group: Group) -> str:
    """Return the name of a group's block: its only branch's, or `PARALLEL`."""
    return PARALLEL if len(group) > 1 else "".join(branch.name for branch in group)
