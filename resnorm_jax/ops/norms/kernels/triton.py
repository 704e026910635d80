"""The adapter to Pallas' Triton lowering: its two kernels as functions of arrays.

A program takes a few rows at a time, and may walk over many with the parameters in registers. A row
that fits the registers is read once. A wider one is read twice, in blocks of columns, the second time
from the cache. A program of the backward kernel keeps the sums of ``dscale`` and ``dbias`` as well: it
leaves one row of partial sums, and these are summed in a fixed order, so that equal inputs give equal
bits. For rows wider than the registers another kernel adds up these sums, by columns.

Everything that knows Pallas is in this file, `triton_programs` and `triton_rows`. Another compiler
can take their place by `forward`, `backward`, `unavailable` and `device_kind`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.ops.norms.kernels import triton_programs
from resnorm_jax.ops.norms.kernels.form import Form, Names, Operands
from resnorm_jax.ops.norms.kernels.tiles import Tile
from resnorm_jax.ops.norms.kernels.triton_deal import Deal

BLOCK = {"forward": 16384, "backward": 8192}  # columns that a program keeps in registers
F32 = jnp.float32
LEAST, MOST_BLOCKS = 64, 9  # columns of a block of a row that is several, and how many those may be
SUMS = Tile(rows=4, warps=4, programs=1056, block=512)
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
    deal = _deal(x.shape, "forward", tile)
    body = functools.partial(triton_programs.forward, form, deal)
    found = _call("norm_forward", body, deal.programs, tile.warps, rows, out_shapes, interpret)
    return {name: a.reshape(_shape(name, operands["x"])) for name, a in found.items()}


def backward(
    form: Form, outs: Names, operands: Operands, tile: Tile, interpret: bool = False
) -> Operands:
    """As `reference.backward`, by one kernel; by two where registers do not hold a row."""
    x, rows = _as_rows(operands)
    deal = _deal(x.shape, "backward", tile)
    sums = tuple(name for name in outs if name != "dx")
    one = deal.kept or not sums
    found: Operands = {}
    if one or "dx" in outs:
        found = _rows_backward(form, outs if one else ("dx",), rows, deal, tile.warps, interpret)
    if not one:
        found |= _sums(form, sums, rows, interpret)
    dtypes = {"dbias": form.bias_dtype, "dscale": getattr(operands.get("scale"), "dtype", None)}
    for name in sums:
        found[name] = jnp.sum(found[name], 0).astype(dtypes[name])
    if "dx" in found:
        found["dx"] = found["dx"].reshape(operands["x"].shape)
    return found


def _rows_backward(
    form: Form, outs: Names, rows: Operands, deal: Deal, warps: int, interpret: bool
) -> Operands:
    """Return ``dx`` and, of each program, the sums of ``dscale`` and ``dbias``, as far as wanted."""
    shapes = {"dx": (deal.shape, rows["x"].dtype)}
    shapes |= dict.fromkeys(("dscale", "dbias"), ((deal.programs, deal.shape[1]), F32))
    body = functools.partial(triton_programs.backward, form, deal)
    out_shapes = {name: shapes[name] for name in outs}
    return _call("norm_backward", body, deal.programs, warps, rows, out_shapes, interpret)


def _sums(form: Form, outs: Names, rows: Operands, interpret: bool) -> Operands:
    """Return the sums of ``dscale`` and ``dbias`` over parts of the rows, by blocks of columns."""
    shape = rows["x"].shape
    across = -(-shape[1] // SUMS.block)
    each, parts = _dealt(-(-shape[0] // SUMS.rows), max(1, SUMS.programs // across))
    body = functools.partial(triton_programs.sums, form, shape, SUMS.rows, SUMS.block, each)
    needed = {name: a for name, a in rows.items() if name in ("x", "g", *form.statistics)}
    shapes: dict[str, tuple[tuple[int, ...], Any]]
    shapes = dict.fromkeys(outs, ((parts, shape[1]), F32))
    return _call("norm_sums", body, parts * across, SUMS.warps, needed, shapes, interpret)


def _deal(shape: tuple[int, ...], operation: str, tile: Tile) -> Deal:
    each, programs = _dealt(-(-shape[0] // tile.rows), tile.programs)
    block, kept = blocks(shape[1], operation, tile)
    return Deal(shape, tile.rows, each, programs, tile.ahead, block, kept)


def _dealt(count: int, programs: int) -> tuple[int, int]:
    """Return how many things each program gets, and how many programs there are; 0: one for each."""
    each = -(-count // min(count, programs or count))
    return each, -(-count // each)


def blocks(width: int, operation: str, tile: Tile) -> tuple[int, bool]:
    """Return the columns of a block, and whether registers hold all blocks of a row.

    A row that registers hold is one block, or a few smaller ones where many columns of one would be
    beyond the row: 768 columns are three blocks of 256.
    """
    whole, most = _power(width), tile.block or BLOCK[operation]
    if whole > most:
        return most, False
    cuts = [whole >> i for i in range(4) if whole >> i >= LEAST]
    fitting = [b for b in cuts if -(-width // b) <= MOST_BLOCKS]
    if not fitting:
        return whole, True
    taken = {b: -(-width // b) * b for b in fitting}
    enough = min(taken.values()) + width // 16
    return next(b for b in fitting if taken[b] <= enough), True


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
    warps: int,
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
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
        name=name,
    )(*operands.values())
    return dict(zip(out_shapes, found, strict=True))


def _power(width: int) -> int:
    """Return the least power of two that is not less than ``width``."""
    return 1 << (width - 1).bit_length()
