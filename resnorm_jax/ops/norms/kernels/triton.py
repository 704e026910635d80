"""The adapter to Pallas' Triton lowering: its two kernels as functions of arrays.

A program of the forward kernel takes a few rows. Where a row fits the registers it is read once; a
wider one is read in blocks of columns, three times, the second and third from the cache. A program
of the backward kernel walks over many rows and keeps the sums of ``dscale`` and ``dbias`` in
registers: it leaves one row of partial sums, and these are summed in a fixed order, so that equal
inputs give equal bits. Statistics are the corrected two-pass ones of `resnorm_jax.ops.statistics`.

Everything that knows Pallas is in this file, `triton_programs` and `triton_rows`. Another compiler
can take their place by `forward`, `backward`, `unavailable` and `device_kind`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.ops.norms.kernels import reference, triton_programs
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
    body = functools.partial(triton_programs.forward, form, x.shape, tile.rows, block)
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
        body = functools.partial(triton_programs.backward, form, x.shape, tile, block, each)
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


def _power(width: int) -> int:
    """Return the least power of two that is not less than ``width``."""
    return 1 << (width - 1).bit_length()
