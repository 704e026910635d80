"""A plan as people read it: two tables, and what nobody has checked."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from resnorm_jax.scaling.collectives import Collective
from resnorm_jax.scaling.memory import PARTS
from resnorm_jax.scaling.mesh import PMAP, total
from resnorm_jax.scaling.plan import COMPILED, Asked, Row
from resnorm_jax.scaling.step import Step
from resnorm_jax.training.memory import size_text

# Compared on fake devices of a CPU: see `resnorm bench --only=scaling`.
CHECKED = 8


def print_plan(rows: Sequence[Row], console: Console) -> None:
    """Print memory by part, and the step by time."""
    memory = Table("devices", "rows each", *PARTS, "total", "from", title="memory of a device")
    for row in rows:
        sizes = [size_text(row.memory[name]) for name in PARTS]
        memory.add_row(
            str(row.mesh.devices), str(row.rows), *sizes, size_text(total(row.memory)), row.basis
        )
    console.print(memory)
    step = Table(
        "devices", "collectives of a step", "sent by each", "compute", "link", "step",
        "examples/s", "efficiency", title="a step",
    )  # fmt: skip
    for row in rows:
        step.add_row(
            str(row.mesh.devices), collectives_text(row.collectives), size_text(row.sent),
            seconds_text(row.compute), seconds_text(row.link), seconds_text(row.step),
            "-" if row.examples_per_second is None else f"{row.examples_per_second:.4g}",
            "-" if row.step is None else f"{100 * row.compute / row.step:.1f} %",
        )  # fmt: skip
    console.print(step)


def collectives_text(found: Sequence[Collective]) -> str:
    """Return e.g. ``1 all-reduce (454 KiB)``: how many of each kind, and the bytes of them all."""
    kinds = dict.fromkeys(c.kind for c in found)
    parts = []
    for kind in kinds:
        these = [c for c in found if c.kind == kind]
        count = sum(c.times for c in these)
        parts.append(f"{count} {kind} ({size_text(sum(c.times * c.size for c in these))})")
    return "; ".join(parts) or "none"


def seconds_text(seconds: float | None) -> str:
    """Return a time as a person reads it."""
    if seconds is None:
        return "-"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def notes(step: Step, asked: Asked, rows: Sequence[Row], platform: str) -> list[str]:
    """Return what a reader must know of a plan: what it is from, and what nobody has checked."""
    length = (
        "images" if step.length is None else f"rows of the longest padded length, {step.length}"
    )
    compute = (
        f"measured here on one device ({platform})"
        if asked.seconds is None
        else "told by --step-seconds, and taken to grow with the rows"
    )
    said = [
        f"It is for {length}; shorter batches need less. Evaluation, checkpoints, the input pipeline "
        "and the memory of the host are not in it.",
        f"Temporaries (activations, gradients, buffers) are those of this platform's XLA ({platform}).",
        f"Compute is {compute}. A step is compute and link, one after the other: nothing overlaps.",
    ]
    said += [f"Not checked: {line}" for line in _unchecked(asked, rows, platform)]
    if step.config.pretrain.updates:
        said.append("Not planned: pretrain, whose phase has a step of its own.")
    return said


def _unchecked(asked: Asked, rows: Sequence[Row], platform: str) -> list[str]:
    most = max(row.mesh.devices for row in rows)
    lines = []
    if asked.link is not None:
        lines.append(
            "every time of a link. It is the ring's equation with your --link; no collective was "
            "timed on a real link by anybody here."
        )
    if most > CHECKED:
        lines.append(
            f"more than {CHECKED} devices. Memory and collectives were compared with compiled "
            f"programs on 1 to {CHECKED} fake CPU devices; beyond that this is paper."
        )
    if asked.parallel != PMAP:
        lines.append(
            "--parallel=sharded as a whole. Memory and collectives are formulas, and no compiled "
            "program was looked at."
        )
    elif any(row.basis != COMPILED for row in rows):
        lines.append(
            "the collectives. One device is here, whose compiler leaves them out, so they are a "
            "formula without the statistics of batch norms."
        )
    if platform == "cpu":
        lines.append("what XLA for a GPU or TPU makes of this step: run the plan there.")
    elif platform != "cpu":
        lines.append(f"the collectives that XLA for a {platform} makes of it, which it may split.")
    return lines
