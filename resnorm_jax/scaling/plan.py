"""A plan: for each number of devices memory by part, bytes on the link and the time of a step."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import jax

from resnorm_jax.errors import UserError
from resnorm_jax.scaling.collectives import Collective
from resnorm_jax.scaling.memory import Program, program
from resnorm_jax.scaling.mesh import (
    PMAP,
    Mesh,
    mesh_of,
    pmap_collectives,
    sharded_collectives,
    sharded_memory,
    total,
)
from resnorm_jax.scaling.step import Step

COMPILED = "compiled"  # memory and collectives are those of a compiled program
MEMORY = "memory compiled, collectives by formula"
FORMULA = "by formula"


@dataclass(frozen=True)
class Asked:
    """What is asked of a plan.

    Attributes:
      devices: each number of them is a row.
      parallel: how they share the work: ``pmap`` or ``sharded``.
      fsdp: devices over which parameters are sharded, if sharded; None for all that ``tensor`` leaves.
      tensor: devices over which a layer is.
      rows: of a device; None to divide the config's batch among them.
      link: bytes a second that a device sends, or None for no times of it.
      latency: seconds of a hop of a ring.
      seconds: of a step of one device with the config's batch (or ``rows``), or None to measure.
    """

    devices: tuple[int, ...]
    parallel: str = PMAP
    fsdp: int | None = None
    tensor: int = 1
    rows: int | None = None
    link: float | None = None
    latency: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True)
class Row:
    """The plan for one number of devices.

    Attributes:
      mesh: of the devices.
      rows: on each device.
      basis: what its memory and collectives are from.
      memory: bytes on a device by part.
      collectives: of a step.
      compute: seconds of one device with these rows.
      link: seconds of the collectives, or None if no link was told.
    """

    mesh: Mesh
    rows: int
    basis: str
    memory: dict[str, int]
    collectives: tuple[Collective, ...]
    compute: float
    link: float | None

    @property
    def step(self) -> float | None:
        """Seconds of a step in which nothing overlaps: compute and link, one after the other."""
        return None if self.link is None else self.compute + self.link

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step."""
        return sum(c.sent for c in self.collectives)

    @property
    def examples_per_second(self) -> float | None:
        """Rows of a global batch over the time of a step."""
        return None if self.step is None else self.rows * self.mesh.row_shares / self.step

    def document(self) -> dict[str, Any]:
        """Return the row as JSON has it."""
        more = ("step", "sent", "examples_per_second")
        memory = {**self.memory, "total": total(self.memory)}
        return {
            **asdict(self),
            "memory": memory,
            "devices": self.mesh.devices,
            **{name: getattr(self, name) for name in more},
        }


def rows_of(step: Step, asked: Asked, mesh: Mesh) -> int:
    """Return the rows of a device.

    Raises:
      UserError: the config's batch does not divide, or the rows not into its micro-batches.
    """
    train = step.config.train
    if asked.rows is not None:
        if asked.rows % train.accumulate:
            raise UserError(
                f"--rows: {asked.rows} do not divide by {train.accumulate} micro-batches"
            )
        return asked.rows
    share = mesh.row_shares * train.accumulate
    if train.batch_size % share:
        raise UserError(
            f"--devices: config.train.batch_size={train.batch_size} does not divide by {share} "
            f"(parts x micro-batches); give --rows=R for R rows on each device"
        )
    return train.batch_size // mesh.row_shares


def plan_run(
    step: Step, asked: Asked, note: Callable[[str], None] = lambda line: None
) -> list[Row]:
    """Return a row of the plan for each number of devices.

    `pmap`'s program is the same for two devices and for a thousand with as many rows on each, but for
    the groups of its collectives: it is compiled for two devices of this machine where there are two.

    Args:
      step: of the run.
      asked: of the plan.
      note: told what is done.

    Raises:
      UserError: what is asked for does not divide.
    """
    here = len(jax.local_devices())

    @cache
    def compiled(devices: int, rows: int) -> Program:
        note(f"compiling the step for {rows} rows on each of {devices}")
        return program(step, devices, rows)

    @cache
    def seconds(rows: int) -> float:
        if asked.seconds is not None:
            return asked.seconds * rows / (asked.rows or step.config.train.batch_size)
        note(f"timing a step of {rows} rows on one device")
        return step.seconds(rows)

    fsdp = 1 if asked.parallel == PMAP else asked.fsdp
    meshes = [mesh_of(devices, fsdp, asked.tensor) for devices in asked.devices]
    each = [(mesh, rows_of(step, asked, mesh)) for mesh in meshes]  # mistakes are found first
    return [
        _row(step, asked, mesh, rows, compiled(min(mesh.devices, here, 2), rows), seconds(rows))
        for mesh, rows in each
    ]


def _row(step: Step, asked: Asked, mesh: Mesh, rows: int, plain: Program, compute: float) -> Row:
    memory, basis, found = dict(plain.memory), COMPILED, _grown(plain, mesh.devices)
    if asked.parallel != PMAP:
        memory, basis = sharded_memory(step, plain, mesh), FORMULA
        found = sharded_collectives(step, mesh, rows)
        compute /= mesh.tensor
    elif plain.devices < min(2, mesh.devices):
        basis, found = MEMORY, pmap_collectives(step, mesh.devices)
    link = None if asked.link is None else _seconds(found, asked.link, asked.latency)
    return Row(mesh, rows, basis, memory, found, compute, link)


def _grown(plain: Program, devices: int) -> tuple[Collective, ...]:
    """Return a program's collectives over as many devices; none over one."""
    if devices == 1:
        return ()
    return tuple(Collective(c.kind, c.size, devices, c.times) for c in plain.collectives)


def _seconds(found: Sequence[Collective], link: float, latency: float) -> float:
    return sum(c.seconds(link, latency) for c in found)
