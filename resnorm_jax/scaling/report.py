"""A plan as people read it: two tables, and what nobody has checked."""

from collections.abc import Callable, Sequence

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
    """Print memory by part, and the step by time: a column for each number of devices."""
    counts = [str(row.mesh.devices) for row in rows]
    memory = Table("devices", *counts, title="memory of a device")
    memory.add_row("rows each", *(str(row.rows) for row in rows))
    for name in PARTS:
        memory.add_row(name, *(size_text(row.memory[name]) for row in rows))
    memory.add_row("total", *(size_text(total(row.memory)) for row in rows), style="bold")
    memory.add_row("from", *(row.basis for row in rows))
    console.print(memory)
    step = Table("devices", *counts, title="a step")
    lines: dict[str, Callable[[Row], str]] = {
        "collectives": lambda row: collectives_text(row.collectives),
        "sent by each": lambda row: size_text(row.sent),
        "compute": lambda row: seconds_text(row.compute),
        "link": lambda row: seconds_text(row.link),
        "step": lambda row: seconds_text(row.step),
        "examples/s": lambda row: _or_none(row.examples_per_second, "{:.4g}"),
        "efficiency": lambda row: _or_none(row.step and 100 * row.compute / row.step, "{:.1f} %"),
    }
    for name, text in lines.items():
        step.add_row(name, *map(text, rows))
    console.print(step)


def _or_none(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


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
            "config.parallel=sharded for this model. Memory and collectives are formulas; those of one "
            "model lie beside its compiled programs in resnorm_jax/scaling/README.md."
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
