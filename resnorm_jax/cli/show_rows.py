"""What ``resnorm show`` prints: a plan, layer by layer, or what a row of any table says."""

import argparse
import inspect
import json
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import Any

from resnorm_jax.cli.arguments import Parser
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.norms.rows import NORMS
from resnorm_jax.ops.activations import ACTIVATIONS
from resnorm_jax.ops.attention import choose_attention, why_not_cudnn
from resnorm_jax.ops.attention.relative import RELATIVE
from resnorm_jax.planning import Plan, plan
from resnorm_jax.planning.parameters import norm_arrays
from resnorm_jax.planning.show import describe, table, to_json
from resnorm_jax.planning.tree import PlannedNorm
from resnorm_jax.planning.unroll import auto_text
from resnorm_jax.registry import Registry
from resnorm_jax.schemes import ARRANGEMENTS, STREAMS
from resnorm_jax.schemes.place import Place
from resnorm_jax.schemes.query_key import QUERY_KEY

TABLES: dict[str, Registry[Any]] = {
    "arrangement": ARRANGEMENTS,
    "stream": STREAMS,
    "norm": NORMS,
    "query_key": QUERY_KEY,
    "activation": ACTIVATIONS,
    "relative": RELATIVE,
}


OF_PLANS = (
    "depth", "layer", "width", "heads", "mlp_width", "kv_heads", "head_width", "window", "relative",
    "relative_buckets", "layer_groups",
    "norm", "activation", "decoder", "other", "json", "length", "backend", "precision",
)  # fmt: skip


def show(chosen: argparse.Namespace, parser: Parser) -> None:
    """Print a plan, or a row."""
    kind = _kind(chosen.name, chosen.table)
    if kind != "arrangement":
        parser.not_read(chosen, OF_PLANS, f"for a row of the table {kind}")
    row = TABLES[kind].get(chosen.name)
    if kind == "arrangement":
        _show_plan(row, chosen)
    else:
        print(_row_text(kind, row))
    if chosen.code:
        shown = [row.stream] if kind == "arrangement" else [row]
        print("\n" + "\n".join(dict.fromkeys(code for item in shown for code in _code(item))))


def _kind(name: str, given: str | None) -> str:
    if given is not None:
        TABLES[given].get(name)
        return given
    found = [kind for kind, rows in TABLES.items() if name in rows]
    if not found:
        known = [n for rows in TABLES.values() for n in rows.names()]
        raise UserError(f"resnorm show: no row {name!r} in any table; {nearest(name, known)}")
    return found[0]


def _show_plan(row: Any, chosen: argparse.Namespace) -> None:
    made = _plan(row, chosen)
    if chosen.layer is not None and not 1 <= chosen.layer <= chosen.depth:
        raise UserError(
            f"--layer: {chosen.layer} is none of {chosen.depth} layers, which count from 1"
        )
    if chosen.json:
        told = {} if chosen.length is None else {"attention": _attention(made, chosen)}
        json.dump({**to_json(made), **told}, sys.stdout, indent=1)
        print()
        return
    print(describe(made, chosen.layer))
    if chosen.layer is None:
        print(f"\nLayers with unroll=auto: {auto_text(chosen.depth)}.")
    if chosen.length is not None:
        title = f"attention of {chosen.length} positions, {chosen.precision}"
        rows = [(f"  {a}", b) for a, b in _attention(made, chosen).items()]
        print(f"\n{title}\n{table(rows)}")


def _attention(made: Plan, chosen: argparse.Namespace) -> dict[str, str]:
    """What computes attention of sequences of a length, as the functions say that choose it."""
    import jax

    backend = chosen.backend or jax.default_backend()
    shape = (1, chosen.length, *made.form.shape("query", made.heads, made.width))
    asked = jax.ShapeDtypeStruct(shape, chosen.precision)
    masked = choose_attention(chosen.length, chosen.length, backend)
    refused = why_not_cudnn(
        asked, asked, mask=made.windowed, bias=made.form.relative is not None, backend=backend
    )
    served = "cudnn" if backend == jax.default_backend() else "cudnn, if the GPU has it"
    by_lengths = served if refused is None else f"{masked}; not cudnn: {refused}"
    return {"backend": backend, "by lengths": by_lengths, "under a mask": masked}


def _plan(row: Any, chosen: argparse.Namespace) -> Plan:
    if chosen.width % chosen.heads and chosen.head_width is None:
        raise UserError(f"--heads: {chosen.heads} does not divide --width {chosen.width}")
    return plan(
        row,
        chosen.depth,
        width=chosen.width,
        heads=chosen.heads,
        mlp_width=chosen.mlp_width,
        norm=chosen.norm,
        activation=chosen.activation,
        kv_heads=chosen.kv_heads,
        head_width=chosen.head_width,
        window=chosen.window,
        relative=chosen.relative,
        relative_buckets=chosen.relative_buckets,
        layer_groups=chosen.layer_groups,
        stack=Place(stack="decoder" if chosen.decoder else "encoder", other=chosen.other),
        cross_attention=chosen.decoder,
    )


def _row_text(kind: str, row: Any) -> str:
    """What a row says of itself: every field that is a text or a number, and its parameters."""
    rows = [("  kind", kind)]
    for field in fields(row):
        value = getattr(row, field.name)
        if field.name != "name" and isinstance(value, str | int | float) and value != "":
            rows.append((f"  {field.name.replace('_', ' ')}", f"{value}"))
    text = f"{row.name}\n{table(rows)}"
    if kind == "norm":
        width, condition = 64, 32
        kept = norm_arrays(PlannedNorm(row.name, row), width, condition)
        shapes = [(f"  {path}", str(list(shape)), where) for where, path, shape in kept]
        if shapes:
            text += f"\n\nkept, at width {width} and a condition of {condition}\n{table(shapes)}"
    return text


def _code(row: Any) -> Iterator[str]:
    """The source of every function of a row."""
    for field in fields(row):
        value = getattr(row, field.name)
        for function in value if isinstance(value, tuple) else (value,):
            inner = getattr(function, "init", function)
            while isinstance(inner, partial):
                inner = inner.func
            if inspect.isfunction(inner):
                closed = [cell.cell_contents for cell in inner.__closure__ or ()]
                for code in (inner, *(c for c in closed if inspect.isfunction(c))):
                    yield inspect.getsource(code)
