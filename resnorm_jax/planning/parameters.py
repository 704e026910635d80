"""What a plan's modules keep: every parameter and every piece of state, without making any."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from inspect import getdoc
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.planning.roles import role_of
from resnorm_jax.planning.tree import (
    AttentionPlan,
    BranchPlan,
    LayerPlan,
    Plan,
    PlannedNorm,
    Segment,
    SublayerPlan,
)
from resnorm_jax.schemes.query_key import QueryKeyParameter
from resnorm_jax.schemes.stream import Site, StreamParameter

Shape = tuple[int, ...]
PARAMS = "params"


@dataclass(frozen=True)
class Parameter:
    """An array that a stack keeps.

    Attributes:
      path: within its collection, from the stack on, parts joined by ``/``.
      shape: with the layers of a segment along the first axis.
      role: what it is for (`resnorm_jax.planning.roles.ROLES`); ``state`` outside of ``params``.
      first: its first value, for people.
      collection: ``params``, or where Flax keeps the state.
    """

    path: str
    shape: Shape
    role: str
    first: str = ""
    collection: str = PARAMS


def _parameter(path: str, shape: Shape, first: str) -> Parameter:
    return Parameter(path, shape, role_of(path) or "unknown", first)


def parameters(plan: Plan) -> tuple[Parameter, ...]:
    """Return all that a stack keeps, outside of its layers first."""
    return (*_outside(plan), *(p for segment in plan.segments for p in of_segment(plan, segment)))


def _outside(plan: Plan) -> Iterator[Parameter]:
    norms = (plan.embedding_norm, *plan.closing_norms, plan.final_norm, plan.relative_norm)
    for norm in norms:
        yield from _of_norm(norm, plan.width, plan.width)
    yield from _of_stream(plan, plan.segments[0].layers[0].sublayers[0], "", "stack")
    if not plan.form.by_layer:
        yield from _relative(plan)
    if plan.stream.scheduled:
        yield Parameter("step", (), "state", "0, then the updates done", "schedule")


def _relative(plan: Plan) -> Iterator[Parameter]:
    if plan.form.relative is not None:
        shape = plan.form.table(plan.heads, plan.width)
        yield _parameter("relative/embedding", shape, "N(0, 0.02^2)")


def of_segment(plan: Plan, segment: Segment) -> tuple[Parameter, ...]:
    """Return what a segment's layers keep, stacked along a first axis."""
    count = segment.sets
    return tuple(
        replace(p, path=f"{segment.name}/{p.path}", shape=(count, *p.shape))
        for p in of_layer(plan, *segment.layers)
    )


def of_layer(plan: Plan, layer: LayerPlan, *alike: LayerPlan) -> tuple[Parameter, ...]:
    """Return what one layer keeps, with its own shapes; first values span the layers ``alike``."""
    layers = (layer, *alike)
    found = [*_of_stream(plan, layer.sublayers[0], "", "layer")]
    if plan.form.by_layer:
        found += _relative(plan)
    for index, sublayer in enumerate(layer.sublayers):
        start = f"{sublayer.name}/"
        found += _of_stream(plan, sublayer, start, "sublayer")
        norms = (sublayer.norm_before, sublayer.norm_after, sublayer.norm_on_stream)
        for norm in (*norms, *sublayer.stream_norms):
            found += _of_norm(norm, plan.width, plan.width, start)
        for number, branch in enumerate(sublayer.branches):
            gains = [one.numbers.sublayers[index].gains[number] for one in layers]
            inner = f"{start}branch/"
            if len(sublayer.branches) > 1:
                found += _of_norm(branch.input_norm, plan.width, plan.width, inner)
                inner += f"branches_{branch.name}/"
            found += _of_branch(plan, branch, gains, inner)
    return tuple(found)


def _of_stream(plan: Plan, sublayer: SublayerPlan, start: str, scope: str) -> Iterator[Parameter]:
    site = Site(width=plan.width, layers=plan.depth, sublayers=plan.sublayers)
    for p in sublayer.stream.parameters:
        if p.scope == scope:
            yield _parameter(start + p.name, p.shape(site), _first(p))


def _first(parameter: StreamParameter) -> str:
    """A number, or the first line of what its function says of itself."""
    if callable(parameter.init):
        return (getdoc(parameter.init) or "").partition("\n")[0]
    return f"{parameter.init:g}"


def _of_norm(
    norm: PlannedNorm | None, width: int, condition: int, start: str = ""
) -> Iterator[Parameter]:
    if norm is None:
        return
    for collection, path, shape in norm_arrays(norm, width, condition):
        full = f"{start}{norm.name}/{path}"
        if collection == PARAMS:
            yield _parameter(full, shape, _first_of_norm(norm, path, width))
        else:
            yield Parameter(full, shape, "state", "", collection)


def _first_of_norm(norm: PlannedNorm, path: str, width: int) -> str:
    spec = norm.spec
    declared = {p.name: p.init for p in spec.parameters}
    if path == "scale" and norm.scale_init is not None:
        return f"{norm.scale_init - spec.scale_offset:g}"
    if path in declared:
        first = declared[path]
        return f"{first(width) if callable(first) else first:g}"
    return {"scale": f"{1 - spec.scale_offset:g}", "bias": "0"}.get(path, "")


@cache
def norm_arrays(
    norm: PlannedNorm, width: int, condition: int
) -> tuple[tuple[str, str, Shape], ...]:
    """Return collection, path and shape of what a norm keeps; nothing is computed."""
    told: dict[str, Any] = {
        "mask": None,
        "condition": jnp.zeros((2, condition)),
        "deterministic": True,
    }
    module = norm.spec.build(name="norm", epsilon=norm.epsilon, scale_init=norm.scale_init)
    init = partial(module.init, **{name: told[name] for name in norm.spec.context})
    x = jax.ShapeDtypeStruct((2, 3, width), jnp.float32)
    made = jax.eval_shape(init, jax.random.key(0), x)
    leaves = jax.tree_util.tree_leaves_with_path(made)
    return tuple(
        (path[0].key, "/".join(str(entry.key) for entry in path[1:]), leaf.shape)
        for path, leaf in leaves
    )


def _of_branch(plan: Plan, branch: BranchPlan, gains: list[Any], start: str) -> Iterator[Parameter]:
    width, inner = plan.width, plan.mlp_width
    if isinstance(branch, AttentionPlan):
        heads = {role: plan.form.shape(role, plan.heads, width) for role in branch.roles}
        shapes: dict[str, tuple[Shape, Shape]] = {
            role: ((width, *heads[role]), heads[role]) for role in ("query", "key", "value")
        }
        shapes["out"] = ((*heads["out"], width), (width,))
    else:
        shapes = {"fc1": ((width, inner), (inner,))}
        if plan.activation.gated:
            shapes["gate"] = shapes["fc1"]
        shapes["fc2"] = ((inner, width), (width,))
    for name, (kernel, bias) in shapes.items():
        role = "fc1" if name == "gate" else name
        first = f"Xavier {branch.distribution}{_times([own.get(role, 1.0) for own in gains])}"
        yield _parameter(f"{start}{name}/kernel", kernel, first)
        if role in plan.biases:
            yield _parameter(f"{start}{name}/bias", bias, "0")
    yield from _inside(plan, branch, start)


def _inside(plan: Plan, branch: BranchPlan, start: str) -> Iterator[Parameter]:
    width, inner = plan.width, plan.mlp_width
    if not isinstance(branch, AttentionPlan):
        if branch.mlp_scale:
            yield _parameter(f"{start}fc1_scale", (inner,), "1")
            if plan.activation.gated:
                yield _parameter(f"{start}gate_scale", (inner,), "1")
        yield from _of_norm(branch.mlp_norm, inner, width, start)
        return
    heads, head = plan.form.shape("query", plan.heads, width)
    kv_heads, _ = plan.form.shape("key", plan.heads, width)
    for p in branch.query_key.parameters:
        yield _parameter(f"{start}query_key_{p.name}", p.shape(heads, head), query_key_first(p))
    together = branch.query_key.over_heads
    sizes = (
        (branch.query_norm, heads * head if together else head),
        (branch.key_norm, kv_heads * head if together else head),
        (branch.value_norm, head),
        (branch.heads_norm, heads * head),
    )
    for norm, size in sizes:
        yield from _of_norm(norm, size, width, start)
    if branch.head_scale:
        yield _parameter(f"{start}head_scale", (heads, 1), "1")
    if branch.shaped:
        for name in ("skip", "softmax", "centre"):
            yield _parameter(f"{start}shaped_{name}_gate", (heads, 1), "1")


def query_key_first(parameter: QueryKeyParameter) -> str:
    """A number, or where it depends on the length its values for 16 and 1,024 positions."""
    short, long = parameter.init(16), parameter.init(1024)
    if short == long:
        return f"{short:.4g}"
    return f"{short:.4g} for 16 positions, {long:.4g} for 1024"


def _times(values: Iterable[float]) -> str:
    text = spread(values)
    return "" if text == "1" else f" times {text}"


def spread(values: Iterable[float]) -> str:
    """Return a number, or the first and the last where several differ.

    >>> spread([2.0, 2.0]), spread([1.0, 0.5, 0.25])
    ('2', '1 to 0.25')
    """
    found = list(dict.fromkeys(f"{value:.4g}" for value in values))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"
