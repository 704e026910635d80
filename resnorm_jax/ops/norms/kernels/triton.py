"""The adapter to Pallas' Triton lowering, and the two kernels in it.

A program of the forward kernel takes a few rows. Where a row fits the registers it is read once; a
wider one is read in blocks of columns, three times, the second and third from the cache. A program
of the backward kernel walks over many rows and keeps the sums of ``dscale`` and ``dbias`` in
registers: it leaves one row of partial sums, and these are summed in a fixed order, so that equal
inputs give equal bits. Statistics are the corrected two-pass ones of `resnorm_jax.ops.statistics`.

Everything that knows Pallas is in this file. Another compiler can take its place by `forward`,
`backward`, `unavailable` and `device_kind`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from resnorm_jax.ops.norms.kernels import reference
from resnorm_jax.ops.norms.kernels.form import Form, Names, Operands
from resnorm_jax.ops.norms.kernels.tiles import Tile

BLOCK = {"forward": 16384, "backward": 8192}  # columns that a program keeps in registers
F32 = jnp.float32
SPECIAL = ("x", "branch", "g", "stream_g", "y", "stream", "dx")  # arrays of rows


def unavailable() -> str | None:
    """Return why this JAX has no Triton lowering for a GPU; None if it has one."""
    try:
        from jax.experimental.pallas import triton
    except ImportError as error:
        return f"this jax, {jax.__version__}, has no Triton lowering of Pallas: {error}"
    find = getattr(triton, "get_gpu_info", None)  # jax 0.11 lowers for a GPU that it can name
    if find is not None:
        try:
            find()
        except (ValueError, RuntimeError) as error:
            return f"jax {jax.__version__} lowers kernels for a GPU at hand or named: {error}"
    return None


def forward(
    form: Form, outs: Names, operands: Operands, tile: Tile, interpret: bool = False
) -> Operands:
    """As `reference.forward`, by one kernel."""
    x, rows = _as_rows(operands)
    shapes = {"y": (x.shape, form.dtype), "stream": (x.shape, x.dtype)}
    numbers = dict.fromkeys(form.statistics, (x.shape[:1], F32))
    out_shapes = {name: {**shapes, **numbers}[name] for name in outs}
    block = min(_power(x.shape[1]), BLOCK["forward"])
    grid = -(-x.shape[0] // tile.rows)
    body = functools.partial(_forward, form, x.shape, tile.rows, block)
    found = _call("norm_forward", body, grid, tile, rows, out_shapes, interpret)
    return {name: a.reshape(_shape(name, operands["x"])) for name, a in found.items()}


def backward(
    form: Form, outs: Names, operands: Operands, tile: Tile, interpret: bool = False
) -> Operands:
    """As `reference.backward`, by one kernel; very wide rows leave the parameters' sums to XLA."""
    x, rows = _as_rows(operands)
    block = min(_power(x.shape[1]), BLOCK["backward"])
    in_kernel = outs if block >= x.shape[1] else tuple(n for n in outs if n == "dx")
    blocks = -(-x.shape[0] // tile.rows)
    each = -(-blocks // min(blocks, tile.programs))
    programs = -(-blocks // each)
    sums = ((programs, x.shape[1]), F32)
    shapes = {"dx": (x.shape, x.dtype), "dscale": sums, "dbias": sums}
    found: Operands = {}
    if in_kernel:
        out_shapes = {name: shapes[name] for name in in_kernel}
        body = functools.partial(_backward, form, x.shape, tile, block, each)
        found = _call("norm_backward", body, programs, tile, rows, out_shapes, interpret)
    if len(in_kernel) < len(outs):
        found |= reference.backward(form, tuple(n for n in outs if n not in found), operands)
    dtypes = {"dbias": form.bias_dtype, "dscale": getattr(operands.get("scale"), "dtype", None)}
    for name in set(in_kernel) - {"dx"}:
        found[name] = jnp.sum(found[name], 0).astype(dtypes[name])
    if "dx" in found:
        found["dx"] = found["dx"].reshape(operands["x"].shape)
    return found


def device_kind() -> str | None:
    """Return the kind of the GPU that programs are lowered for, None if there is none at hand."""
    named = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    if named is not None and named.device_kind != "cpu":
        return named.device_kind
    try:
        return jax.local_devices(backend="cuda")[0].device_kind
    except RuntimeError:
        return None


def _as_rows(operands: Operands) -> tuple[jax.Array, Operands]:
    """Return ``x`` of rank 2, and all operands with the axes before the last one folded."""
    width = operands["x"].shape[-1]
    rows = {n: a.reshape((-1, width) if n in SPECIAL else (-1,)) for n, a in operands.items()}
    return rows["x"], rows


def _shape(name: str, x: jax.Array) -> tuple[int, ...]:
    return x.shape if name in SPECIAL else x.shape[:-1]


def _call(
    name: str,
    body: Callable[[Operands], None],
    programs: int,
    tile: Tile,
    operands: Operands,
    out_shapes: dict[str, tuple[tuple[int, ...], Any]],
    interpret: bool,
) -> Operands:
    """Run ``body`` on references by name, once for each program."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    def kernel(*references: Any) -> None:
        body(dict(zip((*operands, *out_shapes), references, strict=True)))

    kernel.__name__ = kernel.__qualname__ = name
    varying = {"manual_axis_type": jax.typeof(operands["x"]).manual_axis_type}  # under shard_map
    found = pl.pallas_call(
        kernel,
        grid=(programs,),
        out_shape=[jax.ShapeDtypeStruct(*shape, **varying) for shape in out_shapes.values()],
        compiler_params=triton.CompilerParams(num_warps=tile.warps, num_stages=1),
        interpret=interpret,
        name=name,
    )(*operands.values())
    return dict(zip(out_shapes, found, strict=True))


@dataclass(frozen=True)
class _Rows:
    """Some rows of references, block of columns by block of columns.

    Attributes:
      refs: references by name.
      shape: of the arrays of rows.
      rows: indices, one dimension.
      block: columns in a block, a power of two.
      ahead: blocks that have been read before, by name, where one block is a row.
    """

    refs: Operands
    shape: tuple[int, ...]
    rows: jax.Array
    block: int
    ahead: Operands = field(default_factory=dict)

    @property
    def blocks(self) -> int:
        return -(-self.shape[1] // self.block)

    def columns(self, j: Any) -> jax.Array:
        return jnp.asarray(j, jnp.int32) * self.block + _indices(self.block)

    def inside(self, j: Any) -> jax.Array:
        """Which elements of a block are of the array."""
        return (self.rows < self.shape[0])[:, None] & self.valid(j)[None, :]

    def valid(self, j: Any) -> jax.Array:
        return self.columns(j) < self.shape[1]

    def load(self, name: str, j: Any) -> jax.Array:
        """Return a block in float32, 0 outside of the array."""
        block = self.ahead[name] if name in self.ahead else self.read(name, j)
        return block.astype(F32)

    def read(self, name: str, j: Any) -> jax.Array:
        """Return a block as it is stored."""
        return self._load(name, (self.rows[:, None], self.columns(j)[None, :]), self.inside(j))

    def parameter(self, name: str, j: Any) -> jax.Array:
        """Return a parameter's block, to be broadcast over rows."""
        return self._load(name, (self.columns(j),), self.valid(j)).astype(F32)[None, :]

    def number(self, name: str) -> jax.Array:
        """Return one number of each row, to be broadcast over columns."""
        return self._load(name, (self.rows,), self.rows < self.shape[0])[:, None]

    def _load(self, name: str, at: tuple, mask: jax.Array) -> jax.Array:
        from jax.experimental.pallas import triton

        return triton.load(self.refs[name].at[at], mask=mask, other=0)

    def store(self, name: str, j: Any, value: jax.Array) -> None:
        at = (self.rows[:, None], self.columns(j)[None, :])
        self._store(name, at, value, self.inside(j))

    def store_number(self, name: str, value: jax.Array) -> None:
        self._store(name, (self.rows,), lax.squeeze(value, (1,)), self.rows < self.shape[0])

    def _store(self, name: str, at: tuple, value: jax.Array, mask: jax.Array) -> None:
        from jax.experimental.pallas import triton

        ref = self.refs[name]
        triton.store(ref.at[at], value.astype(ref.dtype), mask=mask)

    def sums(self, *terms: Callable[[Any], jax.Array]) -> list[jax.Array]:
        """Return the sum of each term over all columns, kept as size 1."""

        def add(j: Any, before: tuple) -> tuple:
            return tuple(a + term(j) for a, term in zip(before, terms, strict=True))

        if self.blocks == 1:
            totals = tuple(term(0) for term in terms)
        else:
            zeros = tuple(jnp.zeros((self.rows.shape[0], self.block), F32) for _ in terms)
            totals = _loop(self.blocks, add, zeros)
        return [_across(t) for t in totals]

    def each(self, action: Callable[[Any], None]) -> None:
        """Do something with each block of columns."""
        if self.blocks == 1:
            action(0)
        else:

            def step(j: Any, nothing: Any) -> Any:
                action(j)
                return nothing

            _loop(self.blocks, step, jnp.int32(0))

    def kept(self, load: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return ``load``, which reads but once where there is one block."""
        if self.blocks > 1:
            return load
        block = load(0)
        return lambda j: block


def _forward(form: Form, shape: tuple[int, ...], count: int, block: int, refs: Operands) -> None:
    from jax.experimental import pallas as pl

    rows = _Rows(refs, shape, pl.program_id(0) * count + _indices(count), block)

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
    form: Form, rows: _Rows, x: Callable[[Any], jax.Array]
) -> tuple[Operands, Callable[[Any], jax.Array]]:
    """Return the numbers of each row, and the function that gives its normalized blocks."""
    part = 1 / rows.shape[1]  # a product: Triton's quotients are rounded less well
    if not form.subtract_mean:
        (squares,) = rows.sums(lambda j: x(j) * x(j))
        inverse, rest = _rsqrt(squares * part + form.epsilon)
        return {"inverse": inverse}, lambda j: x(j) * inverse + x(j) * rest
    (total,) = rows.sums(x)
    mean = total * part

    def near(j: Any) -> jax.Array:
        return jnp.where(rows.valid(j)[None, :], x(j) - mean, 0)

    total, squares = rows.sums(near, lambda j: near(j) * near(j))
    correction = total * part
    variance = jnp.maximum(squares * part - correction * correction, 0)
    inverse, rest = _rsqrt(variance + form.epsilon)

    def normalized(j: Any) -> jax.Array:
        z = near(j) - correction
        residue = (near(j) - z) - correction
        return z * inverse + (z * rest + residue * inverse)

    return {"mean": mean, "correction": correction, "inverse": inverse}, normalized


def _rsqrt(x: jax.Array) -> tuple[jax.Array, jax.Array]:
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


def _backward(
    form: Form,
    shape: tuple[int, ...],
    tile: Tile,
    block: int,
    each: int,
    refs: Operands,
) -> None:
    from jax.experimental import pallas as pl

    program = pl.program_id(0)
    whole = _Rows(refs, shape, _indices(1), block)
    scale: Any = 1 if "scale" not in refs else None
    if scale is None and whole.blocks == 1:
        scale = whole.parameter("scale", 0) + form.scale_offset
    wanted = tuple(name for name in ("dscale", "dbias") if name in refs)
    names = ("x", "g") if tile.ahead and whole.blocks == 1 else ()

    def rows_at(i: Any, blocks: tuple = ()) -> _Rows:
        rows = (program * each + i) * tile.rows + _indices(tile.rows)
        return _Rows(refs, shape, rows, block, dict(zip(names, blocks, strict=False)))

    def read(i: Any) -> tuple:
        return tuple(rows_at(i).read(name, 0) for name in names)

    def step(i: Any, carried: tuple) -> tuple:
        sums, blocks = carried
        following = read(i + 1)  # on its way while these rows are worked on
        terms = _rows_backward(form, rows_at(i, blocks), scale)
        more = (jnp.sum(terms[name], 0, keepdims=True) for name in wanted)
        return tuple(s + t for s, t in zip(sums, more, strict=True)), following

    zeros = tuple(jnp.zeros((1, block), F32) for _ in wanted)
    sums, _ = _loop(each, step, (zeros, read(0)))
    for name, total in zip(wanted, sums, strict=True):
        partial_sums = _Rows(refs, refs[name].shape, program + _indices(1), block)
        partial_sums.store(name, 0, total)


def _rows_backward(form: Form, rows: _Rows, scale: Any) -> Operands:
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


def _across(t: jax.Array) -> jax.Array:
    """Sum over columns; a GPU takes the sum of a thread's few elements, then a tree of these."""
    return jnp.sum(t, 1, keepdims=True)


def _indices(count: int) -> jax.Array:
    return jnp.arange(count, dtype=jnp.int32)


def _loop(count: int, step: Callable, start: Any) -> Any:
    """Return what ``step(i, carried)`` makes of ``start``; indices of 32 bits also in x64 mode."""
    return lax.fori_loop(np.int32(0), np.int32(count), step, start)


def _power(width: int) -> int:
    """Return the least power of two that is not less than ``width``."""
    return 1 << (width - 1).bit_length()
