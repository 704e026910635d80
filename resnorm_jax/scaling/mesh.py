"""How devices share the work: rows alone (`pmap`), or parameters as well (`sharded`, by formula).

Letters: P bytes of all parameters, G of their gradient, d x f x t devices over data, fsdp and tensor, r
rows of a device, T temporaries of `pmap`'s program for r rows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.scaling.collectives import Collective
from resnorm_jax.scaling.memory import Program, tree_bytes
from resnorm_jax.scaling.step import Step
from resnorm_jax.training.learned import cut

PMAP, SHARDED = "pmap", "sharded"


@dataclass(frozen=True)
class Mesh:
    """The axes over which devices lie; their product is the number of devices."""

    data: int
    fsdp: int = 1
    tensor: int = 1

    @property
    def devices(self) -> int:
        """How many there are."""
        return self.data * self.fsdp * self.tensor

    @property
    def row_shares(self) -> int:
        """How many parts the rows of a global batch are in."""
        return self.data * self.fsdp


def mesh_of(devices: int, fsdp: int | None, tensor: int) -> Mesh:
    """Return the mesh of some devices; without ``fsdp`` that is all that ``tensor`` leaves.

    Raises:
      UserError: the axes do not divide them.
    """
    fsdp = fsdp or max(1, devices // tensor)
    if devices % (fsdp * tensor):
        near = max(1, round(devices / (fsdp * tensor))) * fsdp * tensor
        raise UserError(
            f"--devices: {devices} do not divide by config.mesh.fsdp={fsdp} x "
            f"config.mesh.tensor={tensor}; try {near}"
        )
    return Mesh(devices // (fsdp * tensor), fsdp, tensor)


def gradient_bytes(step: Step) -> int:
    """Return the bytes of the gradient: that of what is trained."""
    learned = step.options.learned
    if learned is None:
        return tree_bytes(step.state.params)
    return tree_bytes(jax.eval_shape(lambda p: cut(p, learned(p)), step.state.params))


def pmap_collectives(step: Step, devices: int) -> tuple[Collective, ...]:
    """Return the one all-reduce of `pmap`: the gradient and the sums of the metrics, float32.

    Batch norms add theirs, of each layer's statistics; they are not in it.
    """
    size = gradient_bytes(step) + 4 * len(step.options.names)
    return (Collective("all-reduce", size, devices),)


def sharded_memory(step: Step, plain: Program, mesh: Mesh) -> dict[str, int]:
    r"""Return memory by part: what belongs to a parameter is divided by f t.

    $$ T_{sharded} = (T - G) (w + (1 - w) / t) + G / (f t) + P / t, \quad w = 10 / (34 + 5 a L / D) $$

    The last term are the gathered parameters, all layers at once. Of the activations, T - G, the inside
    of branches is divided by t; w is the share of the rest, for a heads, L positions and width D
    (Korthikanti et al. 2022, arXiv 2205.05198, eq. 1 and 2).
    """
    share = mesh.fsdp * mesh.tensor
    memory = dict(plain.memory)
    for name in ("parameters", "optimizer state", "averages"):
        memory[name] = math.ceil(memory[name] / share)
    gradient = gradient_bytes(step)
    if share > 1:
        gathered = tree_bytes(step.state.params) // mesh.tensor if mesh.fsdp > 1 else 0
        model = step.config.model
        whole = 10 / (34 + 5 * model.heads * (step.length or 1) / model.width)
        kept = max(0, memory["temporaries"] - gradient) * (whole + (1 - whole) / mesh.tensor)
        memory["temporaries"] = math.ceil(kept + gradient / share) + gathered
    return memory


def sharded_collectives(step: Step, mesh: Mesh, rows: int) -> tuple[Collective, ...]:
    """Return the collectives of a step, by theory.

    Of fully sharded parameters one gather and one reduce-scatter over f; of what is left of the
    gradient one all-reduce over d; and over t four all-reduces a layer of the activations
    ``[r, L, D]``, two on the way and two back (Shoeybi et al. 2019, "Megatron-LM", section 3).
    """
    gradient, params = gradient_bytes(step), tree_bytes(step.state.params)
    found = []
    if mesh.fsdp > 1:
        found += [
            Collective("all-gather", params // mesh.tensor, mesh.fsdp),
            Collective("reduce-scatter", gradient // mesh.tensor, mesh.fsdp),
        ]
    if mesh.data > 1:
        sums = 4 * len(step.options.names)
        share = gradient // (mesh.fsdp * mesh.tensor)
        found.append(Collective("all-reduce", share + sums, mesh.data))
    if mesh.tensor > 1:
        model = step.config.model
        item = 2 if step.config.train.precision == "bfloat16" else 4
        size = rows * (step.length or 1) * model.width * item
        found.append(Collective("all-reduce", size, mesh.tensor, 4 * model.depth))
    return tuple(found)


def total(memory: Mapping[str, int]) -> int:
    """Return the bytes of all parts."""
    return int(np.sum(list(memory.values()), dtype=np.int64))
