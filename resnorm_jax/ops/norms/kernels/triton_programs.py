"""What a program of the forward and of the backward kernel does with its rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.norms.kernels.form import Form, Operands
from resnorm_jax.ops.norms.kernels.tiles import Tile
from resnorm_jax.ops.norms.kernels.triton_rows import F32, Rows, indices, loop


def forward(form: Form, shape: tuple[int, ...], count: int, block: int, refs: Operands) -> None:
    """Normalize ``count`` rows: read ``x`` and ``branch``, write ``y``, ``stream`` and statistics."""
    from jax.experimental import pallas as pl

    rows = Rows(refs, shape, pl.program_id(0) * count + indices(count), block)

    def read(j: Any) -> jax.Array:
        x = rows.load("x", j)
        if "branch" in refs:  # normalized as it is stored, rounded to its dtype
            x = (x + rows.load("branch", j)).astype(refs["x"].dtype).astype(F32)
        return x

    x = rows.kept(read)
    numbers, y = _statistics(form, rows, x)

    def write(j: Any) -> None:
        out = y(j)
        if "scale" in refs:
            out = out * (rows.parameter("scale", j) + form.scale_offset)
        if "bias" in refs:
            out = out + rows.parameter("bias", j)
        rows.store("y", j, out)
        if "branch" in refs:
            rows.store("stream", j, x(j))

    rows.each(write)
    for name, number in numbers.items():
        if name in refs:
            rows.store_number(name, number)


def _statistics(
    form: Form, rows: Rows, x: Callable[[Any], jax.Array]
) -> tuple[Operands, Callable[[Any], jax.Array]]:
    """Return the numbers of each row, and the function that gives its normalized blocks."""
    part = 1 / rows.shape[1]  # a product: Triton's quotients are rounded less well
    if not form.subtract_mean:
        (squares,) = rows.sums(lambda j: x(j) * x(j))
        inverse, rest = rsqrt(squares * part + form.epsilon)
        return {"inverse": inverse}, lambda j: x(j) * inverse + x(j) * rest
    (total,) = rows.sums(x)
    mean = total * part

    def near(j: Any) -> jax.Array:
        return jnp.where(rows.valid(j)[None, :], x(j) - mean, 0)

    total, squares = rows.sums(near, lambda j: near(j) * near(j))
    correction = total * part
    variance = jnp.maximum(squares * part - correction * correction, 0)
    inverse, rest = rsqrt(variance + form.epsilon)

    def normalized(j: Any) -> jax.Array:
        z = near(j) - correction
        residue = (near(j) - z) - correction
        return z * inverse + (z * rest + residue * inverse)

    return {"mean": mean, "correction": correction, "inverse": inverse}, normalized


def backward(
    form: Form,
    shape: tuple[int, ...],
    tile: Tile,
    block: int,
    each: int,
    refs: Operands,
) -> None:
    """Go backward over ``each`` times ``tile.rows`` rows: ``dx``, and one row of each partial sum."""
    from jax.experimental import pallas as pl

    program = pl.program_id(0)
    whole = Rows(refs, shape, indices(1), block)
    scale: Any = 1 if "scale" not in refs else None
    if scale is None and whole.blocks == 1:
        scale = whole.parameter("scale", 0) + form.scale_offset
    wanted = tuple(name for name in ("dscale", "dbias") if name in refs)
    names = ("x", "g") if tile.ahead and whole.blocks == 1 else ()

    def rows_at(i: Any, blocks: tuple = ()) -> Rows:
        rows = (program * each + i) * tile.rows + indices(tile.rows)
        return Rows(refs, shape, rows, block, dict(zip(names, blocks, strict=False)))

    def read(i: Any) -> tuple:
        return tuple(rows_at(i).read(name, 0) for name in names)

    def step(i: Any, carried: tuple) -> tuple:
        sums, blocks = carried
        following = read(i + 1)  # on its way while these rows are worked on
        terms = _rows_backward(form, rows_at(i, blocks), scale)
        more = (jnp.sum(terms[name], 0, keepdims=True) for name in wanted)
        return tuple(s + t for s, t in zip(sums, more, strict=True)), following

    zeros = tuple(jnp.zeros((1, block), F32) for _ in wanted)
    sums, _ = loop(each, step, (zeros, read(0)))
    for name, total in zip(wanted, sums, strict=True):
        partial_sums = Rows(refs, refs[name].shape, program + indices(1), block)
        partial_sums.store(name, 0, total)


def _rows_backward(form: Form, rows: Rows, scale: Any) -> Operands:
    """Write ``dx`` of some rows, if it is wanted; return the terms of the parameters' sums."""
    refs, part = rows.refs, 1 / rows.shape[1]
    numbers = {name: rows.number(name) for name in form.statistics}
    r = numbers["inverse"]

    def centred(j: Any) -> jax.Array:
        x = rows.load("x", j)
        return (x - numbers["mean"]) - numbers["correction"] if form.subtract_mean else x

    z, g = rows.kept(centred), rows.kept(lambda j: rows.load("g", j))

    def scaled(j: Any) -> jax.Array:
        return g(j) * (rows.parameter("scale", j) + form.scale_offset if scale is None else scale)

    if "dx" in refs:
        scaled_g = rows.kept(scaled)
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
        return {"dscale": g(0) * (z(0) * r), "dbias": g(0)}
    return {}


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
