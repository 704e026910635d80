"""Weak scaling on fake devices of a CPU, beside the plan of `resnorm plan-run`: counts and bytes first.

Fake devices share the processor's cores, so that a step on eight of them does eight times the work: its
wall time says nothing of real devices. What it says: which collectives there are, their bytes, memory
by the compiler and by the arrays themselves, and the processor time that a row costs.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from resnorm_jax.config import override
from resnorm_jax.config_file import read_config
from resnorm_jax.interop.init_from import checked_config
from resnorm_jax.scaling.collectives import Collective
from resnorm_jax.scaling.memory import program
from resnorm_jax.scaling.mesh import total
from resnorm_jax.scaling.plan import Asked, plan_run
from resnorm_jax.scaling.report import collectives_text
from resnorm_jax.scaling.step import Step, step_of
from resnorm_jax.training.memory import size_text

# A config, and fields of it. Each shows what another step's collectives or memory are made of.
CASES = {
    "digits": ("digits", {}),
    "digits, batch norm": ("digits:norm=batch", {}),
    "text": ("text:smoke", {"model.width": "64", "model.depth": "2"}),
    "digits, averages, 2 micro-batches": ("digits", {"train.ema": "0.99", "train.accumulate": "2"}),
    "digits, hyper-connections": ("digits:arrangement=hyper_connections", {}),
}


@dataclass(frozen=True)
class Scaling:
    """What is measured: ``rows`` on each of ``devices``, ``steps`` of them for the processor's time."""

    devices: tuple[int, ...] = (1, 2, 4, 8)
    rows: int = 16
    steps: int = 5
    cases: tuple[str, ...] = tuple(CASES)


QUICK = Scaling(devices=(1, 2), rows=4, steps=1, cases=("text",))


def case_step(name: str) -> Step:
    """Return the training step of a case."""
    text, fields = CASES[name]
    config = read_config(text)
    for path, value in fields.items():
        override(config, path, value)
    return step_of(checked_config(config.to_dict()))


def scaling_row(step: Step, name: str, devices: int, settings: Scaling) -> dict[str, Any]:
    """Return the plan for some devices, and what is measured on as many fake ones."""
    rows = settings.rows
    # The plan has two devices at most, and times nothing.
    (plan,) = plan_run(step, Asked((devices,), rows=rows, seconds=1.0))
    real = program(step, devices, rows)
    return {
        "key": f"{name} {devices}",
        "case": name,
        "devices": devices,
        "rows": rows,
        "planned": _facts(plan.memory, plan.collectives),
        "measured": {
            **_facts(real.memory, real.collectives if devices > 1 else ()),
            **_run(step, devices, settings),
        },
    }


def _facts(memory: Mapping[str, int], found: Sequence[Collective]) -> dict[str, Any]:
    return {
        "memory": {**memory, "total": total(memory)},
        "collectives": sum(c.times for c in found),
        "collective_bytes": sum(c.times * c.size for c in found),
        "sent": sum(c.sent for c in found),
        "told": collectives_text(found),
    }


def _run(step: Step, devices: int, settings: Scaling) -> dict[str, Any]:
    """Do some steps; return bytes of the state on one device, and seconds a step."""
    parallel = step.over(jax.local_devices()[:devices])
    batch, state = step.batch(settings.rows * devices), parallel.replicate(step.first())
    state, _ = jax.block_until_ready(parallel.train(state, batch))  # compiles
    here = jax.local_devices()[0]
    kept = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(state)
        for shard in leaf.addressable_shards
        if shard.device == here
    )
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(settings.steps):
        state, sums = jax.block_until_ready(parallel.train(state, batch))
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    steps = settings.steps
    return {
        "state_bytes": kept,
        "loss": float(sums["loss"] / sums["count"]),
        "cpu_seconds_a_step": processor / steps,
        "wall_seconds_a_step": wall / steps,
    }


HEADER = (
    "case", "devices", "collectives: planned / compiled", "sent by each: planned / compiled",
    "memory: planned / compiled", "error", "CPU s a row", "wall s a step",
)  # fmt: skip


def scaling_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the table as Markdown: a line a case and number of devices."""
    cells = [HEADER, ("---",) * len(HEADER)]
    for row in rows:
        planned, real = row["planned"], row["measured"]
        memory = planned["memory"]["total"], real["memory"]["total"]
        cells.append((
            row["case"], str(row["devices"]),
            f"{planned['collectives']} / {real['collectives']}",
            f"{size_text(planned['sent'])} / {size_text(real['sent'])}",
            f"{size_text(memory[0])} / {size_text(memory[1])}",
            f"{100 * (memory[0] / memory[1] - 1):+.2f} %",
            f"{1e3 * real['cpu_seconds_a_step'] / (row['rows'] * row['devices']):.2f} ms",
            f"{real['wall_seconds_a_step']:.3f}",
        ))  # fmt: skip
    return [f"| {' | '.join(line)} |" for line in cells]
