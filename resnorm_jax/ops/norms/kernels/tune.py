"""Find each kernel's best tile on the device at hand, and rewrite the table of tiles.

Run ``python -m resnorm_jax.ops.norms.kernels.tune --note="who measured what"`` on a machine with a
GPU; rows of other devices, widths and dtypes stay. ``--rows`` and ``--widths`` give the shapes.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.ops.norms.kernels import reference, tiles, triton
from resnorm_jax.ops.norms.kernels.form import Form, Operands
from resnorm_jax.ops.norms.kernels.tiles import Tile

KERNELS = {"forward": triton.forward, "backward": triton.backward}
WIDTHS = (256, 512, 768, 1024, 2048, 4096, 8192, 16384)
ELEMENTS = 2**26  # of an array: more than fits a cache
ROWS, WARPS, BLOCKS = (1, 2, 4, 8), (4, 8, 16, 32), (2048, 4096, 8192)
EACH = {"forward": (2, 32), "backward": (2, 16)}  # elements of a thread, of each array
PROCESSORS, RESIDENT = 132, (16, 32, 64)  # of a GPU, and the warps of a kernel on each

Measure = Callable[[Callable[[], Any]], float]


def seconds(call: Callable[[], Any], queued: int = 20, repeats: int = 5) -> float:
    """Return the median time of a call, of several batches of calls that are waited for at once."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready([call() for _ in range(queued)])
        times.append((time.perf_counter() - start) / queued)
    return statistics.median(times)


def candidates(operation: str, width: int) -> Iterator[Tile]:
    """Yield the tiles worth trying: the rule's first, then all that fit the registers."""
    yield tiles.rule(operation, width)
    least, most = EACH[operation]
    wide = width > max(BLOCKS) // 2
    for block, rows, warps in product((0, *BLOCKS) if wide else (0,), ROWS, WARPS):
        if block >= width:
            continue
        columns, kept = triton.blocks(width, operation, Tile(rows, warps, block=block))
        each = rows * columns * (-(-width // columns) if kept else 1) / (32 * warps)
        if least <= each <= most * (1 + wide) or (each < least and warps == min(WARPS)):
            yield from _dealt(operation, Tile(rows, warps, block=block), kept)


def _dealt(operation: str, tile: Tile, kept: bool) -> Iterator[Tile]:
    """Yield a tile by the number of programs that walk over rows, reading ahead or not."""
    if operation == "forward":
        yield tile
        if not kept:  # what a program would keep of the parameters
            return
    programs = sorted({PROCESSORS * max(1, warps // tile.warps) for warps in RESIDENT})
    for number, early in product(programs, (False, True) if kept else (False,)):
        yield replace(tile, programs=number, ahead=early)


def tune(
    shapes: Sequence[tuple[int, int]],
    dtypes: Sequence[str],
    note: str,
    *,
    measure: Measure = seconds,
    choices: Callable[[str, int], Iterator[Tile]] = candidates,
    interpret: bool = False,
) -> list[dict[str, Any]]:
    """Return the table with the best tiles for these shapes on the device at hand.

    Args:
      shapes: ``(rows, width)`` of the arrays to try layer norm on.
      dtypes: names of their dtypes.
      note: where the rows of the table are from, beside device and versions.
      measure: returns the seconds that a call takes.
      choices: yields the tiles to try for an operation and a width.
      interpret: carry the kernels out step by step, where there is no GPU: a trial of this function.

    Returns:
      Rows as `tiles.table` has them: new ones for this device, all others unchanged.
    """
    device = jax.devices()[0].device_kind
    source = f"{note}; jax {jax.__version__}"
    found = []
    for shape in shapes:
        for dtype in dtypes:
            for operation, call in _calls(shape, dtype, interpret).items():
                times = {t: _time(measure, call, t) for t in choices(operation, shape[1])}
                best = min(times, key=lambda t: times[t])
                row = (
                    device, operation, shape[1], dtype, *astuple(best),
                    round(1e6 * times[best], 1), f"{source}, {shape[0]} rows",
                )  # fmt: skip
                found.append(dict(zip(tiles.KEYS, row, strict=True)))
    new = {_key(row) for row in found}
    kept = [row for row in tiles.table() if _key(row) not in new]
    return sorted([*kept, *found], key=_key)


def write(table: Sequence[dict[str, Any]], path: Path = tiles.TABLE) -> None:
    """Write a table, one row a line."""
    about = json.loads(tiles.TABLE.read_text())["about"]
    rows = ",\n".join(f"    {json.dumps(row)}" for row in table)
    path.write_text(f'{{\n  "about": {json.dumps(about)},\n  "tiles": [\n{rows}\n  ]\n}}\n')
    tiles.table.cache_clear()


def _key(row: dict[str, Any]) -> tuple:
    return tuple(row[name] for name in tiles.KEYS[:4])


def _time(measure: Measure, call: Callable[[Tile], Callable[[], Any]], tile: Tile) -> float:
    """Return a tile's seconds, without end for one that does not compile."""
    try:
        return measure(call(tile))
    except jax.errors.JaxRuntimeError:
        return float("inf")


def _calls(
    shape: tuple[int, int], dtype: str, interpret: bool
) -> dict[str, Callable[[Tile], Callable[[], Any]]]:
    """Return by operation how to make a call of a tile's compiled kernel."""
    keys = jax.random.split(jax.random.key(0), 4)
    x, g = (jax.random.normal(key, shape, dtype) for key in keys[:2])
    scale, bias = (jax.random.normal(key, shape[1:], jnp.float32) for key in keys[2:])
    form = Form(True, 1e-6, 0.0, None, jnp.dtype(dtype), bias.dtype)
    outs = {"forward": ("y", *form.statistics), "backward": ("dx", "dscale", "dbias")}
    given: dict[str, Operands] = {"forward": {"x": x, "scale": scale, "bias": bias}}
    kept = jax.jit(lambda at: reference.forward(form, outs["forward"], at))(given["forward"])
    numbers = {name: kept[name] for name in form.statistics}
    given["backward"] = {"x": x, "scale": scale, **numbers, "g": g}

    def of(operation: str) -> Callable[[Tile], Callable[[], Any]]:
        def call(tile: Tile) -> Callable[[], Any]:
            kernel, operands = KERNELS[operation], given[operation]
            run = jax.jit(lambda at: kernel(form, outs[operation], at, tile, interpret))
            return lambda: run(operands)

        return call

    return {operation: of(operation) for operation in KERNELS}


def main() -> None:
    """Tune and rewrite the table; the command's entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--note", required=True, help="who measured, and on what machine")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--rows", type=int, help="rows of each array; by default 2^26 elements")
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    options = parser.parse_args()
    reason = triton.unavailable()
    if reason is not None or jax.default_backend() != "gpu":
        parser.error(reason or f"tiles are measured on a GPU; this is {jax.default_backend()}")
    shapes = [(options.rows or ELEMENTS // width, width) for width in options.widths]
    write(tune(shapes, options.dtypes, options.note))


if __name__ == "__main__":
    main()
