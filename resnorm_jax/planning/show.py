"""A plan in words: what each layer does, by which constants, with which parameters."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from resnorm_jax.planning.by_layer import BASE, FAR, pattern_text
from resnorm_jax.planning.form import ALL, ATTENTION_ROLES, FEED_FORWARD_ROLES
from resnorm_jax.planning.parameters import Parameter, of_layer, parameters, spread
from resnorm_jax.planning.tree import (
    AttentionPlan,
    BranchPlan,
    LayerPlan,
    Plan,
    PlannedNorm,
    SublayerPlan,
)
from resnorm_jax.schemes.stream import ADD

Rows = Sequence[Sequence[str]]


def describe(plan: Plan, layer: int | None = None) -> str:
    """Return a plan, or one of its layers, as text.

    Args:
      plan: what is shown.
      layer: the layer, counted from 1; None for all, with ranges where layers are alike.

    Raises:
      IndexError: if there is no such layer.
    """
    shown = (
        [(plan.layer(layer),)]
        if layer is not None
        else [segment.layers for segment in plan.segments]
    )
    parts = [_head(plan)]
    if layer is None and plan.embedding_norm is not None:
        parts.append(f"before the first layer: x = {_apply(plan.embedding_norm, 'x')}")
    parts += [_layers(plan, layers) for layers in shown]
    if layer is None:
        parts.append(_end(plan))
    kept = of_layer(plan, *shown[0]) if layer is not None else parameters(plan)
    sublayers = [s for layers in shown for s in layers[0].sublayers]
    outer = () if layer is not None else (plan.embedding_norm, *plan.closing_norms, plan.final_norm)
    parts.append(_norms((*outer, *(norm for s in sublayers for norm in norms_of(s)))))
    parts.append(_kept(kept))
    return "\n\n".join(part for part in parts if part)


def _head(plan: Plan) -> str:
    row, stream = plan.row, plan.stream
    stands = f", an {plan.layers[0].place.stack}" if plan.layers[0].place.other else ""
    rows = [
        ("equation", row.equation),
        ("source", row.source),
        ("used by", row.used_by),
        ("stream", f"{stream.name}: {stream.equation}"),
        ("", stream.source),
        (
            "stack",
            f"{plan.depth} layers, {plan.sublayers} sublayers, width {plan.width}, {plan.heads} "
            f"heads{_heads(plan)}, feed-forward width {plan.mlp_width}{stands}",
        ),
        ("", _shared(plan)),
        *_form(plan),
        ("activation", f"{plan.activation.name}: {plan.activation.equation}"),
    ]
    name = ", ".join((row.name, *row.aliases))
    return f"{name}\n" + table([(f"  {a}", b) for a, b in rows if b])


def _shared(plan: Plan) -> str:
    repeats = plan.segments[0].repeats
    return f"{repeats} layers in a row share their parameters" if repeats > 1 else ""


def _heads(plan: Plan) -> str:
    """What differs of the heads from width / heads features each, with keys of their own."""
    form = plan.form
    wide = f" of {form.head_width} features" if form.head_width else ""
    return wide + (f" ({form.kv_heads} of keys and values)" if form.kv_heads else "")


def _form(plan: Plan) -> Iterator[tuple[str, str]]:
    form, roles = plan.form, (*ATTENTION_ROLES, *FEED_FORWARD_ROLES)
    if form.scale is not None:
        yield "scale", f"scores {form.scale:g} q . k"
    if form.relative is not None:
        norm = (
            f"; the table goes through {plan.relative_norm.spec.name}" if plan.relative_norm else ""
        )
        yield "relative", f"{form.relative.name}: {form.relative.equation}{norm}"
        own = ", a table in each layer" if form.by_layer else ""
        alike = f"{form.buckets} buckets, alike from distance {form.positions}"
        side = f"images of {form.buckets} x {form.buckets} patches"
        yield "", (side if form.relative.pairs else alike) + own
    if len(plan.biases) < len(roles):
        yield "biases", ", ".join(role for role in roles if role in plan.biases) or "none"


def _positions(layers: Sequence[LayerPlan]) -> Iterator[str]:
    """How far the layers see, and their rotary bases, each as the shortest pattern by layer."""
    windows = [layer.numbers.window for layer in layers]
    if windows[0] is not None:
        seen = pattern_text([ALL if w == FAR else w for w in windows])
        yield f"\n  window  {seen} positions to either side"
    bases = [layer.numbers.rotary_base for layer in layers]
    if bases[0] not in (None, BASE) or len(set(bases)) > 1:
        yield f"\n  rotary base  {pattern_text([f'{base:g}' for base in bases])}"


def _layers(plan: Plan, layers: Sequence[LayerPlan]) -> str:
    first, last = layers[0].place.layer, layers[-1].place.layer
    title = f"layer {first}" if first == last else f"layers {first} to {last}"
    lines = [f"{title}, of {plan.depth}"]
    for index, sublayer in enumerate(layers[0].sublayers):
        lines.append(f"  {sublayer.name}")
        rows = [*_steps(sublayer), *_numbers(layers, index)]
        lines.append(table([(f"    {a}", b) for a, b in rows]))
    drops = spread(layer.numbers.drop_path for layer in layers)  # type: ignore[misc]
    drop = "" if drops == "0" else f"\n  drop path  {drops}"
    return "\n".join(lines) + drop + "".join(_positions(layers))


def _steps(sublayer: SublayerPlan) -> Iterator[tuple[str, str]]:
    """What a sublayer does, in the order of execution."""
    read = "stream.read(x)" if sublayer.stream.reads else "x"
    yield "reads", f"h = r {_apply(sublayer.norm_before, read)}"
    names = [branch.name for branch in sublayer.branches]
    each = [f"{b.name}({_apply(b.input_norm, 'h')})" for b in sublayer.branches]
    yield "runs", f"f = {_apply(sublayer.norm_after, ' + '.join(each))}"
    for branch in sublayer.branches:
        inside = ", ".join(_inside(branch))
        if inside:
            yield ("inside" if len(names) == 1 else f"inside {branch.name}"), inside
    write = sublayer.stream.equation if sublayer.stream is ADD else "stream.write(x, f)"
    yield "writes", f"x = {_apply(sublayer.norm_on_stream, write)}"


def _apply(norm: PlannedNorm | None, text: str) -> str:
    return text if norm is None else f"{norm.spec.name}({text})"


def _inside(branch: BranchPlan) -> Iterator[str]:
    if not isinstance(branch, AttentionPlan):
        if branch.mlp_scale:
            yield "learned factors of the first projections: fc1's times sqrt(D), the gate's"
        if branch.mlp_norm is not None:
            yield f"{branch.mlp_norm.spec.name} before fc2"
        return
    if branch.cross:
        yield "attends to the memory"
    norm = f", norm {branch.query_norm.spec.name}" if branch.query_norm else ""
    yield f"logits {branch.query_key.equation}{norm}"
    if branch.value_norm is not None:
        yield f"{branch.value_norm.spec.name} of the values, over each head"
    if branch.value_residual is not None:
        own = 1 - branch.value_residual
        yield f"values {own:g} V + {branch.value_residual:g} V of layer 1"
    if branch.shaped:
        yield "attention matrix a I + b softmax - g C, C attending to all keys alike, by head"
    if branch.head_scale:
        yield "a learned factor for each head"
    if branch.heads_norm is not None:
        yield f"{branch.heads_norm.spec.name} of the joined heads"


def _numbers(layers: Sequence[LayerPlan], index: int) -> Iterator[tuple[str, str]]:
    numbers = [layer.numbers.sublayers[index] for layer in layers]
    scales = {
        "r": spread(n.read_scale for n in numbers),  # type: ignore[misc]
        "a": spread(n.skip_scale for n in numbers),  # type: ignore[misc]
        "b": spread(n.branch_scale for n in numbers),  # type: ignore[misc]
    }
    yield "scales", ", ".join(f"{name} = {value}" for name, value in scales.items())
    gains: dict[str, list[str]] = {}
    for number, branch in enumerate(layers[0].sublayers[index].branches):
        for role in branch.roles:
            values: list[Any] = [n.gains[number].get(role, 1.0) for n in numbers]
            gains.setdefault(spread(values), []).append(role)
    said = [f"{', '.join(roles)} {value}" for value, roles in gains.items() if value != "1"]
    if said:
        yield "init gains", "; ".join(said)


def _end(plan: Plan) -> str:
    view = "x" if plan.stream.close is None else "stream.close, with norms of its own"
    if plan.stream.close is None:
        view = _apply(plan.final_norm, view)
    elif plan.final_norm is not None:
        view = f"stream.close, with {plan.final_norm.spec.name} as its final norm"
    gain = plan.embedding_gain
    tokens = "" if gain == 1 else f"\ntoken embeddings: deviation times {gain:.4g} at first"
    return f"after the last layer: out = {view}{tokens}"


def norms_of(sublayer: SublayerPlan) -> Iterator[PlannedNorm]:
    """All norms of a sublayer."""
    found: list[PlannedNorm | None] = [
        sublayer.norm_before, sublayer.norm_after, sublayer.norm_on_stream, *sublayer.stream_norms,
    ]  # fmt: skip
    for branch in sublayer.branches:
        found.append(branch.input_norm)
        if isinstance(branch, AttentionPlan):
            found += [branch.query_norm, branch.key_norm, branch.value_norm, branch.heads_norm]
        else:
            found.append(branch.mlp_norm)
    yield from (norm for norm in found if norm is not None)


def _norms(norms: Iterable[PlannedNorm | None]) -> str:
    rows = {}
    for norm in norms:
        if norm is not None:
            epsilon = norm.spec.epsilon if norm.epsilon is None else norm.epsilon
            shown = "" if epsilon is None else f"eps {epsilon:g}"
            rows[norm.spec.name, shown] = (f"  {norm.spec.name}", norm.spec.equation, shown)
    return "norms\n" + table(list(rows.values())) if rows else ""


def _kept(kept: Iterable[Parameter]) -> str:
    parts = []
    for collection, group in groupby(sorted(kept, key=_order), key=lambda p: p.collection):
        items = list(group)
        title = "parameters" if collection == "params" else f"state, in {collection}"
        count = sum(_size(p.shape) for p in items)
        rows = [(f"  {p.path}", _shape(p.shape), p.role, p.first) for p in items]
        parts.append(f"{title}: {count:,} numbers\n" + table(rows))
    return "\n\n".join(parts)


def _order(parameter: Parameter) -> tuple[bool, str]:
    return parameter.collection != "params", parameter.collection


def _size(shape: Sequence[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def table(rows: Rows) -> str:
    """Return rows as aligned columns.

    >>> print(table([("a", "bc"), ("def", "g")]))
    a    bc
    def  g
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values, layer by layer, for programs to read."""

    def norm(planned: PlannedNorm | None) -> Any:
        if planned is None:
            return None
        spec = planned.spec
        epsilon = spec.epsilon if planned.epsilon is None else planned.epsilon
        return {"norm": spec.name, "epsilon": epsilon, "scale_init": planned.scale_init}

    def sublayer(layer: LayerPlan, index: int) -> dict[str, Any]:
        own, numbers = layer.sublayers[index], layer.numbers.sublayers[index]
        gains = zip(own.branches, numbers.gains, strict=True)
        return {
            "name": own.name,
            "sublayer": numbers.sublayer,
            "read_scale": numbers.read_scale,
            "skip_scale": numbers.skip_scale,
            "branch_scale": numbers.branch_scale,
            "norm_before": norm(own.norm_before),
            "norm_after": norm(own.norm_after),
            "norm_on_stream": norm(own.norm_on_stream),
            "stream_norms": {n.name: norm(n) for n in own.stream_norms},
            "branches": {b.name: {"gains": dict(g), "inside": list(_inside(b))} for b, g in gains},
        }

    return {
        "arrangement": plan.row.name,
        "equation": plan.row.equation,
        "source": plan.row.source,
        "used_by": plan.row.used_by,
        "stream": plan.stream.name,
        "stream_equation": plan.stream.equation,
        "depth": plan.depth,
        "layer_groups": plan.depth // plan.segments[0].repeats,
        "width": plan.width,
        "heads": plan.heads,
        "mlp_width": plan.mlp_width,
        "kv_heads": plan.form.shape("key", plan.heads, plan.width)[0],
        "head_width": plan.form.shape("query", plan.heads, plan.width)[1],
        "attention_scale": plan.form.scale,
        "relative": plan.form.relative and plan.form.relative.name,
        "biases": sorted(plan.biases),
        "activation": plan.activation.name,
        "embedding_norm": norm(plan.embedding_norm),
        "final_norm": norm(plan.final_norm),
        "embedding_gain": plan.embedding_gain,
        "layers": [
            {
                "layer": layer.place.layer,
                "parameters_under": part.name,
                "drop_path": layer.numbers.drop_path,
                "window": None if layer.numbers.window == FAR else layer.numbers.window,
                "rotary_base": layer.numbers.rotary_base,
                "sublayers": [sublayer(layer, n) for n in range(len(layer.sublayers))],
            }
            for part in plan.segments
            for layer in part.layers
        ],
        "parameters": [
            {
                "collection": p.collection,
                "path": p.path,
                "shape": list(p.shape),
                "role": p.role,
                "first": p.first,
            }
            for p in parameters(plan)
        ],
    }
