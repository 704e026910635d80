"""The table of what each door costs a device, from a file of results alone."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
KINDS = ("all-gather", "reduce-scatter", "all-reduce")
HEADER = (
    "", "parameters", "optimizer", "step", "fits", *KINDS, "as theory", "largest difference of losses",
)  # fmt: skip


def sharding_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return a row of cells for each case: megabytes on a device, and what travels."""
    return [
        [
            row["key"],
            *(_mega(row[name]) for name in ("parameter_bytes", "optimizer_bytes")),
            _mega(row["argument_bytes"] + row["temporary_bytes"]),
            "yes" if row["fits"] else "no",
            *(_sent(row["collectives"].get(kind)) for kind in KINDS),
            "yes" if row["as_expected"] else "no",
            f"{_difference(row, rows):.0e}",
        ]
        for row in rows
    ]


def sharding_title(rows: Sequence[Row]) -> str:
    """Return what stands over the table."""
    return (
        "A training step by door (devices along data x fsdp x tensor): MB on each device, whether "
        f"arguments and temporaries fit {_mega(rows[0]['budget'])} MB, collectives of arrays (MB; a "
        "loop's body counts once)"
    )


def _mega(count: float) -> str:
    return f"{count / 1e6:.2f}"


def _sent(entry: Mapping[str, int] | None) -> str:
    return "-" if entry is None else f"{entry['count']} ({_mega(entry['bytes'])})"


def _difference(row: Row, rows: Sequence[Row]) -> float:
    """Return how far a row's losses are from the first row's, relatively."""
    pairs = zip(row["losses"], rows[0]["losses"], strict=True)
    return max(abs(one / other - 1) for one, other in pairs)
