"""What each door costs a device, by the compiled programs: memory, and what travels."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from resnorm_jax.bench.model import Size, optimizer, our_model, random_batch
from resnorm_jax.config import MeshConfig
from resnorm_jax.errors import UserError
from resnorm_jax.scaling import collectives as scaling
from resnorm_jax.training.devices import DataParallel
from resnorm_jax.training.doors import Door
from resnorm_jax.training.partition import DATA, FSDP, TENSOR, along
from resnorm_jax.training.sharded import Sharded
from resnorm_jax.training.step import StepOptions, TrainState, create_state

DEVICES = 8
BUDGET = 60_000_000  # bytes of a made-up device, less than a step by `jax.pmap` needs of it
SIZE = Size(depth=4, width=256, heads=8, mlp_width=1024, batch=16, length=32)
QUICK = Size(depth=2, width=32, heads=4, mlp_width=64, batch=8, length=8)
FEW = 1024  # bytes: of metrics, norms and flags, which travel apart from arrays
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A door on some devices; without a mesh that of `jax.pmap`."""

    devices: int
    mesh: MeshConfig | None = None

    @property
    def key(self) -> str:
        """E.g. ``"sharded 2 x 4 x 1"``: devices along data, fsdp and tensor."""
        if self.mesh is None:
            return f"pmap {self.devices}"
        data = self.devices // (self.mesh.fsdp or 1) // self.mesh.tensor
        return f"sharded {data} x {self.mesh.fsdp} x {self.mesh.tensor}"

    def door(self, options: StepOptions) -> Door:
        """Return the door over the first devices."""
        devices = jax.devices()[: self.devices]
        if self.mesh is None:
            return DataParallel(options, devices)
        return Sharded(options, devices, None, self.mesh)


CASES = (
    Case(1), Case(8),
    *(Case(n, MeshConfig(fsdp=n)) for n in (1, 2, 4, 8)),
    Case(8, MeshConfig(fsdp=4)), Case(8, MeshConfig(fsdp=4, tensor=2)),
    Case(8, MeshConfig(fsdp=2, tensor=2)),
)  # fmt: skip


def sharding_row(case: Case, size: Size, steps: int = 2) -> Row:
    """Return what a step holds and sends on each device, beside what theory says, and its losses."""
    options = StepOptions(our_model(size).apply, optimizer())
    door, batch = case.door(options), random_batch(size)
    state = door.replicate(_first_state(size))
    own = _on_a_device(state.params), _on_a_device(state.opt_state)
    program = door.lower(state, batch).compile()
    memory: Any = program.memory_analysis()
    # One device's sums over itself stay in the program of a CPU.
    found = collectives(program.as_text()) if case.devices > 1 else []
    expected = _counted(_expected(case, size, door, state))
    losses = []
    for _ in range(steps):
        state, sums = door.train(state, batch)
        losses.append(float(sums["loss"]) / float(sums["count"]))
    return {
        "key": case.key, "devices": case.devices, "mesh": case.mesh and asdict(case.mesh),
        "parameter_bytes": own[0], "optimizer_bytes": own[1],
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "budget": BUDGET, "fits": memory.argument_size_in_bytes + memory.temp_size_in_bytes <= BUDGET,
        "collectives": _counted(found), "few": sum(bytes_ < FEW for _, bytes_ in found),
        "expected": expected, "as_expected": _alike(_counted(found), expected), "losses": losses,
    }  # fmt: skip


def check_devices() -> None:
    """Raise UserError where there are too few devices."""
    found = jax.local_devices()
    if len(found) < DEVICES:
        raise UserError(
            f"--only=sharding: {len(found)} devices found, {DEVICES} needed; on a CPU leave "
            "xla_force_host_platform_device_count out of XLA_FLAGS, or give 8"
        )


def collectives(text: str | None, devices: int = DEVICES) -> list[tuple[str, int]]:
    """Return the kind of each collective of a compiled program and the bytes that a device has of it.

    Those are what it gets of an all-gather or an all-reduce, and what it keeps of a reduce-scatter. The
    body of a loop counts once.
    """
    found = scaling.collectives(text, devices)
    return [(c.kind, c.size // (c.group if c.kind == "reduce-scatter" else 1)) for c in found]


def _counted(found: Iterable[tuple[str, int]]) -> dict[str, dict[str, int]]:
    """Count those that are of arrays, by kind."""
    out: dict[str, dict[str, int]] = {}
    for kind, size in found:
        if size >= FEW:
            entry = out.setdefault(kind, {"count": 0, "bytes": 0})
            entry["count"] += 1
            entry["bytes"] += size
    return out


def _alike(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Return whether as many travel, and as many bytes, but for numbers that XLA sends with them."""
    return found.keys() == expected.keys() and all(
        found[kind]["count"] == told["count"] and abs(found[kind]["bytes"] - told["bytes"]) < FEW
        for kind, told in expected.items()
    )


def _expected(case: Case, size: Size, door: Door, state: TrainState) -> list[tuple[str, int]]:
    """Return what theory says of the arrays that travel, as `collectives` does.

    ``pmap``: one all-reduce of the gradient and three metrics. Sharded: an all-gather and a
    reduce-scatter of each array that ``fsdp`` divides, one all-reduce of the shares over ``data``, one
    of what ``fsdp`` does not divide and the metrics, and over ``tensor`` two all-reduces of rows in the
    body of the forward and two in that of the backward loop over layers.
    """
    leaves = jax.tree.leaves(state.params)
    if not isinstance(door, Sharded):
        total = sum(leaf.nbytes for leaf in leaves) + 3 * 4
        return [("all-reduce", total)] * (case.devices > 1)
    sizes = door.mesh.shape
    specs = jax.tree.leaves(door.specs(state.params))
    held = [
        (leaf.nbytes // (1 if along(spec, TENSOR) is None else sizes[TENSOR]), along(spec, FSDP))
        for leaf, spec in zip(leaves, specs, strict=True)
    ]
    cut = [nbytes for nbytes, axis in held if axis is not None]
    rest = sum(nbytes for nbytes, axis in held if axis is None) + 3 * 4
    rows = 4 * size.batch // door.shares * size.length * size.width
    return [
        *(("all-gather", nbytes) for nbytes in cut),
        *(("reduce-scatter", nbytes // sizes[FSDP]) for nbytes in cut),
        *[("all-reduce", sum(cut) // sizes[FSDP])] * (sizes[DATA] > 1),
        *[("all-reduce", rest)] * (case.devices > 1),
        *[("all-reduce", rows)] * 4 * (sizes[TENSOR] > 1),
    ]


def _first_state(size: Size) -> TrainState:
    """Return the first state, on the host."""
    batch, model = random_batch(size), our_model(size)

    def first() -> TrainState:
        variables = model.init(jax.random.key(0), batch["x"][:1], batch["mask"][:1])
        return create_state(variables, optimizer(), 0, None)

    return jax.tree.map(np.asarray, jax.jit(first)())


def _on_a_device(tree: Any) -> int:
    """Return the bytes that the first device has of arrays."""
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))
