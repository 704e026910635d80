"""How the devices of a run work together: one of two doors, chosen by ``config.parallel``."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from resnorm_jax.config import Config, MeshConfig
from resnorm_jax.errors import UserError
from resnorm_jax.training.devices import DataParallel, Spread
from resnorm_jax.training.mesh import mesh_shape
from resnorm_jax.training.sharded import Sharded
from resnorm_jax.training.step import StepOptions, TrainState


class Door(Protocol):
    """What runs a step over devices: of the same rows each door makes the same numbers.

    Attributes:
      options: of the training step.
      devices: on which it runs.
      programs: traced, hence compiled, so far.
    """

    options: StepOptions
    devices: list[jax.Device]
    programs: int

    @property
    def shares(self) -> int:
        """Over how many parts the rows of a batch are spread."""

    @property
    def split(self) -> int:
        """How many devices share out each parameter, and what the optimizer keeps of it."""

    def created(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, which makes a state of arrays, as one program."""

    def replicate(self, tree: Any) -> Any:
        """Return a state, or variables, laid over the devices as the steps take them."""

    def host(self, tree: Any) -> Any:
        """Return copies of arrays on the host, whole; all processes of a run call it alike."""

    def share(self, size: int) -> slice | None:
        """Return which rows of a global batch this process reads; None where it reads all."""

    def put(self, batch: Mapping[str, Any]) -> Spread:
        """Begin to bring a global batch ``[B, ...]`` of host arrays to the devices, for `train`."""

    def put_several(self, batches: Sequence[Mapping[str, Any]]) -> Spread:
        """Likewise batches of like shapes, each for an update of its own; not every door can."""

    def train(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Any]:
        """Do one update with a global batch, or one with each of several; the state is donated."""

    def lower(self, state: TrainState, batch: Mapping[str, Any]) -> jax.stages.Lowered:
        """Return the program of `train`, not compiled yet."""

    def predict(self, variables: Mapping[str, Any], batch: Mapping[str, Any]) -> np.ndarray:
        """Return log-probabilities of a global batch, ``[B, K]`` on the host."""


Make = Callable[[StepOptions, Sequence[jax.Device], Mapping[str, Any] | None], Door]


def door_of(config: Config, devices: int) -> Make:
    """Return what makes a run's door, of a step's options, the devices and XLA's options.

    Args:
      config: of the run.
      devices: how many there are.

    Raises:
      UserError: if the mesh does not divide the devices; or for several updates a call with a door that
        has none.
    """
    if config.parallel == "pmap":
        return DataParallel
    if config.train.updates_per_call > 1:
        raise UserError(
            f"config.train.updates_per_call: {config.train.updates_per_call} is for parallel=pmap; set "
            "it to 1 with parallel=sharded"
        )
    mesh_shape(config.mesh, devices)
    return partial(Sharded, mesh=config.mesh)


def check_mesh(config: Config, meta: Mapping[str, Any]) -> None:
    """Raise UserError where the data have no positions that the mesh could share out."""
    if config.mesh.sequence > 1 and meta["kind"] == "images":
        raise UserError(
            f"config.mesh.sequence: {config.mesh.sequence} devices would share out positions, and the "
            "data are images; set sequence=1"
        )


def using(config: Config, devices: Sequence[jax.Device]) -> tuple[list[jax.Device], Make]:
    """Return the devices that use a run's model after training, and what makes their door.

    By ``pmap`` that is one device. A model that was trained in shares may not fit one: it is shared out
    over all devices here, `config.devices` of them at most, by the run's mesh where that divides them,
    else along ``fsdp`` alone.

    Args:
      config: of the run.
      devices: of this process.
    """
    if config.parallel == "pmap":
        return list(devices[:1]), DataParallel
    chosen = list(devices[: config.devices or len(devices)])
    inner = (config.mesh.fsdp or 1) * config.mesh.tensor * config.mesh.sequence
    mesh = config.mesh if len(chosen) % inner == 0 else MeshConfig()
    return chosen, partial(Sharded, mesh=mesh)
