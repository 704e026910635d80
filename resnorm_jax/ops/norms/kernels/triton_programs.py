"""What a program of the forward and of the backward kernel does with its rows."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.norms.kernels.form import Form, Operands
from resnorm_jax.ops.norms.kernels.triton_deal import Deal
from resnorm_jax.ops.norms.kernels.triton_rows import F32, Rows, across, indices, loop

HALF = ("bfloat16", "float16")


def forward(form: Form, deal: Deal, refs: Operands) -> None:
    """Normalize some rows: read ``x`` and ``branch``, write ``y``, ``stream`` and statistics."""
    whole = deal.parameters(refs)
    read_once = deal.each > 1
    names = ("scale", "bias")
    kept = {n: whole.keep(partial(whole.parameter, n)) for n in names if n in refs and read_once}

    def parameter(rows: Rows, name: str, j: Any) -> jax.Array:
        return kept[name](j) if name in kept else rows.parameter(name, j)

    def step(rows: Rows, nothing: tuple) -> tuple:
        _forward(form, rows, partial(parameter, rows))
        return nothing

    deal.walk(refs, ("x", "branch"), step, ())


def _forward(form: Form, rows: Rows, parameter: Callable[[str, Any], jax.Array]) -> None:
    refs = rows.refs

    def added(x: jax.Array, branch: Callable[[], jax.Array]) -> jax.Array:
        """Normalized as it is stored, rounded to its dtype."""
        if "branch" not in refs:
            return x
        return (x + branch()).astype(refs["x"].dtype).astype(F32)

    x = rows.keep(lambda j: added(rows.load("x", j), lambda: rows.load("branch", j)))
    first = lambda: added(rows.leading("x"), lambda: rows.leading("branch"))  # noqa: E731
    numbers, y = _statistics(form, rows, x, first)

    def write(j: Any) -> None:
        out = y(j)
        if "scale" in refs:
            out = out * (parameter("scale", j) + form.scale_offset)
        if "bias" in refs:
            out = out + parameter("bias", j)
        rows.store("y", j, out)
        if "branch" in refs:
            rows.store("stream", j, x(j))

    rows.each(write)
    for name, number in numbers.items():
        if name in refs:
            rows.store_number(name, number)


Blocks = Callable[[Any], jax.Array]


def _statistics(
    form: Form, rows: Rows, x: Blocks, first: Callable[[], jax.Array]
) -> tuple[Operands, Blocks]:
    """Return the numbers of each row, and the function that gives its normalized blocks."""
    part = 1 / rows.shape[1]  # a product: Triton's quotients are rounded less well
    half = all(rows.refs[name].dtype.name in HALF for name in ("x", "y"))
    if not form.subtract_mean:
        (squares,) = rows.sums(lambda j: x(j) * x(j))
        inverse, rest = rsqrt(squares * part + form.epsilon)
        numbers = {"inverse": inverse}
        if half:
            return numbers, lambda j: x(j) * inverse
        return numbers, lambda j: x(j) * inverse + x(j) * rest
    if half and rows.kept:
        numbers, y = _of_half(form, rows, x, first())
    else:
        numbers, y = _of_single(form, rows, x)
    return numbers, y


def _of_half(form: Form, rows: Rows, x: Blocks, first: jax.Array) -> tuple[Operands, Blocks]:
    """Take two sums over a row, for half precision.

    The difference of two numbers of half precision is exact in float32, or nearly so where they are far
    apart: the mean of a row less its first element needs no correction.
    """
    part = 1 / rows.shape[1]
    near = rows.keep(lambda j: rows.valid(j, x(j) - first))
    (total,) = rows.sums(near)
    correction = total * part
    centred = rows.keep(lambda j: rows.valid(j, near(j) - correction))
    (squares,) = rows.sums(lambda j: centred(j) * centred(j))
    inverse = lax.rsqrt(squares * part + form.epsilon)
    numbers = {"mean": first, "correction": correction, "inverse": inverse}
    return numbers, lambda j: centred(j) * inverse


def _of_single(form: Form, rows: Rows, x: Blocks) -> tuple[Operands, Blocks]:
    """Take the corrected two-pass statistics.

    Where registers do not hold a row, the first pass reads one block of columns alone. The square of
    what that block's mean is off by is at most the number of blocks times the variance: little cancels.
    """
    part = 1 / rows.shape[1]
    if rows.kept:
        (total,) = rows.sums(x)
        mean = total * part
    else:
        mean = across(x(0)) * (1 / min(rows.block, rows.shape[1]))

    def near(j: Any) -> jax.Array:
        return rows.valid(j, x(j) - mean)

    total, squares = rows.sums(near, lambda j: near(j) * near(j))
    correction = total * part
    variance = jnp.maximum(squares * part - correction * correction, 0)
    inverse, rest = rsqrt(variance + form.epsilon)

    def normalized(j: Any) -> jax.Array:
        z = near(j) - correction
        residue = (near(j) - z) - correction
        return z * inverse + (z * rest + residue * inverse)

    return {"mean": mean, "correction": correction, "inverse": inverse}, normalized


def backward(form: Form, deal: Deal, refs: Operands) -> None:
    """Go backward over some rows: ``dx``, and one row of each parameter's partial sums."""
    whole = deal.parameters(refs)
    scale: Any = lambda j: 1  # noqa: E731
    if "scale" in refs:
        scale = whole.keep(lambda j: whole.parameter("scale", j) + form.scale_offset)
    wanted = tuple(name for name in ("dscale", "dbias") if name in refs)

    def step(rows: Rows, sums: list) -> list:
        terms = _rows_backward(form, rows, scale)
        more = [[jnp.sum(t, 0, keepdims=True) for t in terms[name]] for name in wanted]
        return jax.tree.map(jnp.add, sums, more)

    zeros = [[jnp.zeros((1, whole.block), F32) for _ in range(whole.blocks)] for _ in wanted]
    for name, totals in zip(wanted, deal.walk(refs, ("x", "g"), step, zeros), strict=True):
        partial_sums = deal.own_row(refs, name)
        for j, total in enumerate(totals):
            partial_sums.store(name, j, total)


def _centred(form: Form, rows: Rows) -> tuple[jax.Array, Blocks]:
    """Return the inverse deviation of each row, and the function that gives its centred blocks."""
    numbers = {name: rows.number(name) for name in form.statistics}

    def centred(j: Any) -> jax.Array:
        x = rows.load("x", j)
        return (x - numbers["mean"]) - numbers["correction"] if form.subtract_mean else x

    return numbers["inverse"], centred


def _rows_backward(form: Form, rows: Rows, scale: Blocks) -> dict[str, list[jax.Array]]:
    """Write ``dx`` of some rows, if it is wanted; return the terms of the parameters' sums."""
    refs, part = rows.refs, 1 / rows.shape[1]
    r, centred = _centred(form, rows)
    z, g = rows.keep(centred), rows.keep(lambda j: rows.load("g", j))
    if "dx" in refs:
        scaled_g = rows.keep(lambda j: g(j) * scale(j))
        along, mean = rows.sums(lambda j: scaled_g(j) * z(j), scaled_g)
        along, mean = along * part * (r * r), mean * part

        def write(j: Any) -> None:
            dx = scaled_g(j) - z(j) * along
            if form.subtract_mean:
                dx = dx - mean
            dx = dx * r
            if "stream_g" in refs:
                dx = dx + rows.load("stream_g", j)
            rows.store("dx", j, dx)

        rows.each(write)
    if "dscale" in refs or "dbias" in refs:
        blocks = range(rows.blocks)
        return {"dscale": [g(j) * (z(j) * r) for j in blocks], "dbias": [g(j) for j in blocks]}
    return {}


def sums(
    form: Form, shape: tuple[int, ...], count: int, block: int, each: int, refs: Operands
) -> None:
    """Add up ``dscale`` and ``dbias`` of one block of columns over ``each`` times ``count`` rows."""
    from jax.experimental import pallas as pl

    across_columns = -(-shape[1] // block)
    first = pl.program_id(0) % across_columns * block
    program = pl.program_id(0) // across_columns
    wanted = tuple(name for name in ("dscale", "dbias") if name in refs)

    def step(i: Any, before: tuple) -> tuple:
        at = (program * each + i) * count + indices(count)
        rows = Rows(refs, shape, at, block, first=first)
        r, centred = _centred(form, rows)
        g = rows.load("g", 0)
        terms = {"dscale": g * (centred(0) * r), "dbias": g}
        return tuple(b + terms[name] for b, name in zip(before, wanted, strict=True))

    zeros = tuple(jnp.zeros((count, block), F32) for _ in wanted)
    for name, total in zip(wanted, loop(each, step, zeros), strict=True):
        partial_sums = Rows(
            refs, refs[name].shape, program + indices(1), block, full=True, first=first
        )
        partial_sums.store(name, 0, jnp.sum(total, 0, keepdims=True))


def rsqrt(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return ``1 / sqrt(x)`` in two parts, as `resnorm_jax.ops.statistics` does."""
    root = lax.rsqrt(x)
    x1, x2 = _halves(x)
    r1, r2 = _halves(root)
    p1, p2 = _halves(x1 * r1)
    p3 = x1 * r2 + x2 * r1 + x2 * r2
    error = (1 - p1 * r1) - p1 * r2 - p2 * r1 - (p2 * r2 + p3 * root)
    limits = jnp.finfo(F32)
    exact = (x > float(limits.tiny / limits.eps)) & (x < float(limits.max / 2))
    return root, jnp.where(exact, 0.5 * root * error, 0)


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split float32 numbers into their upper 12 digits and the rest, both exact."""
    bits = lax.bitcast_convert_type(x, jnp.int32) & jnp.int32(-4096)
    upper = lax.bitcast_convert_type(bits, F32)
    return upper, x - upper
