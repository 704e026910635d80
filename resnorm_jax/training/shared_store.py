"""Checkpoints that the processes of a run write together, and of which process 0 keeps the books."""

from functools import partial
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.training.checkpoint import (
    CheckpointStore,
    DamagedCheckpointError,
    Note,
    params_sha256,
)
from resnorm_jax.training.processes import Processes


class SharedStore(CheckpointStore):
    """A `CheckpointStore` of several processes, which call its methods in the same order.

    Process 0 looks into the directory and tells the others what it found. All save with Orbax together:
    of arrays that are sharded each process writes its part, and process 0 what all have alike. When all
    is there, process 0 writes the manifest over the finished files, and gives the checkpoint its name.
    Saving is waited for.

    Args:
      processes: of the run.
      inner: that of process 0; in the others it says how, and writes nothing.
    """

    def __init__(self, processes: Processes, inner: CheckpointStore) -> None:
        super().__init__(
            inner.directory, inner.keep, inner.warn, inner.every, inner.period, inner.rank
        )
        self.processes, self._inner = processes, inner
        self.directory = self._inner.directory = Path(
            processes.shared(lambda: str(inner.directory.resolve()))
        )

    def steps(self) -> list[int]:
        """Return the steps of finished checkpoints, ascending."""
        return self.processes.shared(self._inner.steps)

    def ranked(self) -> list[int]:
        """Return the steps of finished checkpoints, the best last."""
        return self._asked(self._inner.ranked)

    def note(self, step: int) -> Note:
        """Return the note of a checkpoint."""
        return self._asked(partial(self._inner.note, step))

    def check(self, step: int) -> None:
        """Raise DamagedCheckpointError unless all files of a checkpoint are those that were saved."""
        self._asked(partial(self._inner.check, step))

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps."""
        self.processes.shared(lambda: self._inner.drop_after(step))

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """Return the newest sound checkpoint as ``(step, tree)``, or None when there is none."""
        step = self.processes.shared(self._inner.newest_sound)
        return None if step is None else (step, self.read(step, like))

    def read(self, step: int, like: Any) -> Any:
        """Return the pytree saved at ``step``, whose files were checked.

        Raises:
          UserError: this process does not see the directory.
        """
        if not self._path(step).is_dir():
            raise UserError(
                f"--workdir: process {self.processes.index} does not see {self._path(step)}; name a "
                "directory on a file system that all processes share, by the same path"
            )
        return super().read(step, like)

    def save(self, step: int, tree: Any, note: Note) -> None:
        """Write a checkpoint; see `CheckpointStore.save`."""
        values, inner = flax.serialization.to_state_dict(tree), self._inner
        if self.rank is None and step in self.steps():
            return
        alike = jax.tree.map(_part, values)
        whole = [leaf for leaf in jax.tree.leaves(alike) if isinstance(leaf, np.ndarray)]
        self.processes.agree(f"a state at step {step}", {"arrays": params_sha256(whole)})
        path = Path(self.processes.shared(lambda: str(inner.begin(step, _host(values)))))
        self.write_arrays(path, alike)
        self.processes.barrier("written")
        self.processes.shared(lambda: inner.finish(step, note))

    def _asked(self, look: Any) -> Any:
        """Return what process 0 finds; damage that it finds is raised in all processes."""

        def answer() -> dict[str, Any]:
            try:
                return {"found": look()}
            except DamagedCheckpointError as error:
                return {"damaged": str(error)}

        told = self.processes.shared(answer)
        if "damaged" in told:
            raise DamagedCheckpointError(told["damaged"])
        return told["found"]


def _host(values: Any) -> Any:
    """Return arrays of the same sizes on the host, for the space that they need."""
    return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), values)


def _part(leaf: Any) -> Any:
    """Return what Orbax is to write of an array.

    It would spread what is replicated over the processes too, and compile a program for each shape.
    """
    whole = not isinstance(leaf, jax.Array) or leaf.is_fully_replicated
    return np.asarray(leaf) if whole else leaf
