"""Tables of speed as aligned Markdown: for a terminal and for a README alike, from the JSON alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from resnorm_jax.bench.load import load_lines
from resnorm_jax.bench.scaling import scaling_lines
from resnorm_jax.bench.score_report import score_lines
from resnorm_jax.bench.sharding_report import HEADER, sharding_cells, sharding_title
from resnorm_jax.bench.text_report import speed_line, text_lines

Row = Mapping[str, Any]
Lines = list[str]
DIRECTIONS = ("forward", "backward", "both")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """Return the lines of a table, the first column to the left, numbers to the right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in [cells[0], rule, *cells[1:]]
    ]
    return [f"| {line} |" for line in lines]


def names_of(tables: Iterable[Iterable[str]]) -> list[str]:
    """Return all names, ours first: a file has them in the order of the alphabet."""
    names = {name for table in tables for name in table}
    return sorted(names, key=lambda name: (not name.startswith("ours"), name.lower()))


def norm_lines(rows: Sequence[Row], directions: Sequence[str] = DIRECTIONS) -> Lines:
    """Return a line for each norm and direction: microseconds, and percent of the copy."""
    ways = [
        (row, way, row["passes"][way]) for row in rows for way in directions if way in row["passes"]
    ]
    names = names_of(found["times"] for _, _, found in ways)
    table = [
        [f"{row['key']}, {way}", *(_norm_cell(found, name) for name in names), *_ratios(found)]
        for row, way, found in ways
    ]
    title = "Norm, forward and backward: microseconds (% of the copy's bandwidth)"
    header = ["", *names, "ours/flax", "ours/best peer", "ours/unfused"]
    return [title, "", *markdown(header, table), *skipped(rows)]


def _norm_cell(found: Row, name: str) -> str:
    if name not in found["times"]:
        return "-"
    share = found.get("share_of_copy", {}).get(name)
    return _significant(1e6 * found["times"][name]["median"]) + (
        "" if share is None else f" ({share:.0f})"
    )


def _ratios(found: Row) -> list[str]:
    """Return ours to flax.linen, to the fastest peer and to ours in two programs: under 1 is faster."""
    times = {name: each["median"] for name, each in found["times"].items()}
    ours, peers = times.get("ours"), [t for n, t in times.items() if not n.startswith("ours")]
    others = (times.get("flax"), min(peers, default=None), times.get("ours unfused"))
    return [_two(ours / other if ours and other else None) for other in others]


def step_lines(rows: Sequence[Row]) -> Lines:
    """Return a table for each model: a line for each way to run it."""
    lines: Lines = []
    for row in rows:
        size = row["size"]
        lines += [
            f"Training step {row['key']}: {size['depth']} layers, width {size['width']}, batch "
            f"{size['batch']}, length {size['length']}" + _defaults(row.get("defaults")),
            "",
            *markdown(STEP_COLUMNS, [_step_cells(row, n) for n in names_of([row["times"]])]),
            "",
            *(line for note in skipped([row]) for line in (note, "")),
        ]
    return lines[:-1]


STEP_COLUMNS = (
    "", "ms a step", "to flax", "to torch", "compile s", "temporary GB", "% of peak", "kernels",
)  # fmt: skip


def _step_cells(row: Row, name: str) -> list[str]:
    times, facts = row["times"], row.get("facts", {}).get(name, {})
    median = times[name]["median"]
    used = row.get("utilization", {}).get(name)
    return [
        name,
        _significant(1e3 * median),
        *(_two(median / times[p]["median"] if p in times else None) for p in ("flax", "torch")),
        _one(facts.get("compile_seconds")),
        _two(facts.get("temporary_bytes"), 1e-9),
        _one(used, 100),
        ", ".join(f"{count} {kernel}" for kernel, count in (facts.get("kernels") or {}).items()),
    ]


def _defaults(found: Row | None) -> str:
    return "" if not found else "; ours: " + ", ".join(f"{k} {v}" for k, v in sorted(found.items()))


def curves_lines(rows: Sequence[Row]) -> Lines:
    """Return a line for each model: its last losses, and how far half precision is from float32."""
    table = [
        [row["key"], str(row["steps"]), *(f"{found[-1]:.4f}" for found in row["losses"].values()),
         *(f"{distance:.1e}" for distance in row["distance"].values())]
        for row in rows
    ]  # fmt: skip
    names = [*rows[0]["losses"], *(f"{name}: off by" for name in rows[0]["distance"])]
    title = (
        "Losses in half precision beside float32: the last, and the root mean square of differences"
    )
    return [title, "", *markdown(["", "updates", *names], table)]


def determinism_lines(rows: Sequence[Row]) -> Lines:
    """Return whether two runs of a seed ended with the same bits."""
    table = [
        [row["key"], str(row["steps"]), "yes" if row["equal"] else "NO", *_hashes(row)]
        for row in rows
    ]
    title = "Two runs of one seed, in two processes"
    return [title, "", *markdown(["", "steps", "equal bits", "first", "second"], table)]


def _hashes(row: Row) -> list[str]:
    return [sha[:12] for sha in row["params_sha256"]]


def copy_lines(section: Row) -> Lines:
    """Return how fast the device copies."""
    found = section["bytes_per_second"].items()
    speeds = ", ".join(f"{name} {speed / 1e12:.3f} TB/s" for name, speed in found)
    return [f"Copy of {section['bytes'] / 2**20:.0f} MiB, read and written: {speeds}"]


def skipped(rows: Iterable[Row]) -> Lines:
    """Return who was left out, and why, once each."""
    notes = {f"{n}: skipped: {why}" for row in rows for n, why in row["skipped"].items()}
    return sorted(notes)


def tile_lines(rows: Sequence[Row]) -> Lines:
    """Return the kernels' best tiles."""
    numbers = ("rows", "warps", "programs")
    table = [
        [f"{row['key']}, {tile['operation']}", *(str(tile[name]) for name in numbers)]
        for row in rows
        for tile in row["tiles"]
    ]
    return ["Tiles of the kernels", "", *markdown(["", *numbers], table)]


def sharding_lines(rows: Sequence[Row]) -> Lines:
    """Return what each device holds and sends, a line for each door and mesh."""
    return [sharding_title(rows), "", *markdown(HEADER, sharding_cells(rows))]


REPORTS: dict[str, Callable[[Any], Lines]] = {
    "copy": copy_lines,
    "norm": norm_lines,
    "step": step_lines,
    "determinism": determinism_lines,
    "curves": curves_lines,
    "tune": tile_lines,
    "scaling": scaling_lines,
    "scores": score_lines,
    "serve": lambda rows: [line for row in rows for line in load_lines(row)],
    "sharding": sharding_lines,
    "text": text_lines,
    "speed": lambda rows: list(map(speed_line, rows)),
}


def _significant(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _one(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.1f}"


def _two(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.2f}"
