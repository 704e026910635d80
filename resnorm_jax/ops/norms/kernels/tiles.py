"""How rows are dealt out to a kernel's programs: a table by device and width, and a rule."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

KEYS = (
    "device", "operation", "width", "dtype", "rows", "warps", "programs", "ahead", "block",
    "microseconds", "source",
)  # fmt: skip
TABLE = Path(__file__).with_name("tiles.json")


@dataclass(frozen=True)
class Tile:
    """A kernel's cut.

    Attributes:
      rows: rows that a program takes at a time, a power of two.
      warps: warps of 32 threads in a program.
      programs: most programs of a kernel, each of which walks over its rows; 0 for one for each few
        rows. Of a backward kernel each keeps its own sums of the parameters.
      ahead: whether a program that walks reads the next rows while it works on some.
      block: columns that are worked on at a time, a power of two; wider rows are read twice. 0 for as
        many as registers hold.
    """

    rows: int
    warps: int
    programs: int = 0
    ahead: bool = False
    block: int = 0


WIDE = {"forward": Tile(2, 8, block=4096), "backward": Tile(2, 32, 132, block=4096)}


@lru_cache(maxsize=1)
def table() -> list[dict[str, Any]]:
    """Return the rows of `TABLE`: device, operation, width, dtype, tile, its time and the source."""
    return json.loads(TABLE.read_text())["tiles"]


def tile(operation: str, width: int, dtype: str, device: str | None) -> Tile:
    """Return the tile of the nearest width in the table of this device and dtype, or the rule's.

    Args:
      operation: ``"forward"`` or ``"backward"``.
      width: columns of a row.
      dtype: name of ``x``'s dtype.
      device: as JAX names its kind, or None if it is not known.
    """
    size = 4 if dtype == "float32" else 2
    fit = [
        row
        for row in table()
        if row["operation"] == operation
        and (device or "").startswith(row["device"])
        and (4 if row["dtype"] == "float32" else 2) == size
        and width <= row["width"] < 2 * width
    ]
    if not fit:
        return rule(operation, width)
    row = min(fit, key=lambda row: row["width"])
    return Tile(row["rows"], row["warps"], row["programs"], row["ahead"], row["block"])


def rule(operation: str, width: int) -> Tile:
    """Return the tile for a device that nobody measured: near what an H200 likes best."""
    block = 1 << (width - 1).bit_length()
    if block > 8192:
        return WIDE[operation]
    if operation == "forward":
        rows = max(1, 2048 // block)
        return Tile(rows, _between(4, rows * block // 1024, 16))
    rows = max(1, 1024 // block)
    warps = _between(4, rows * block // 512, 16)
    return Tile(rows, warps, 132 * (32 // warps))


def _between(least: int, value: int, most: int) -> int:
    return max(least, min(value, most))
