"""Which checkpoints a seed has, and saving them while training goes on."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np

from resnorm_jax.config import TrainConfig
from resnorm_jax.errors import UserError
from resnorm_jax.training.checkpoint import CheckpointStore, DamagedCheckpointError
from resnorm_jax.training.processes import current
from resnorm_jax.training.run_directory import seed_directory
from resnorm_jax.training.shared_store import SharedStore


def merit(note: Mapping[str, float]) -> tuple[float, float]:
    """Return what the best checkpoint is largest in, on validation rows; then it has less loss.

    It is the accuracy, or micro F1 where a row has any number of labels.
    """
    return note.get("micro_f1", note["accuracy"]), -note["loss"]


@dataclass(frozen=True)
class Stores:
    """A seed's checkpoints: the last ones, from which a run goes on, and the best ones."""

    last: CheckpointStore
    best: CheckpointStore

    @classmethod
    def of(
        cls,
        workdir: Path,
        seed: int,
        train: TrainConfig,
        warn: Callable[[str], None] = print,
        saver: "Saver | None" = None,
    ) -> "Stores":
        """Return those of a seed of a run; with a saver they are saved in its thread."""
        make: Any = partial(BackgroundStore, saver) if saver else CheckpointStore
        if current().several:
            make = _shared
        last, best = (seed_directory(workdir, seed, kind) for kind in ("last", "best"))
        return cls(
            make(last, train.keep, warn, train.keep_every, train.checkpoint_every),
            make(best, train.keep_best, warn, rank=merit),
        )

    def check_best(self, step: int, note: Mapping[str, Any]) -> None:
        """Make sure that the best checkpoint is the one that it would be in an undisturbed run.

        Args:
          step: of the last checkpoint, from which the run goes on; 0 if there is none.
          note: its note: ``best``, steps of the best checkpoints at that time, and ``validate``,
            whether the step was still to be validated.

        Raises:
          UserError: one of the best checkpoints is damaged or gone. There is none to take its place.
        """
        there = self.best.steps()
        after = step - bool(note.get("validate"))
        newer = [s for s in there if s > after]  # they took the place of some, then came the end
        gone = [s for s in note.get("best", ()) if s not in there]
        if len(gone) > len(newer):
            raise self._lost(f"the best checkpoint, of step {gone[-1]}, is gone")
        for one in there:
            try:
                self.best.check(one)
            except DamagedCheckpointError as error:
                raise self._lost(f"damaged checkpoint: {error}") from None

    def _lost(self, fault: str) -> UserError:
        return UserError(
            f"{fault}, and train.select=best promises to score it; restore it from a copy, or remove "
            f"{self.best.directory.parent} to train this seed again"
        )


def _shared(*args: Any, **options: Any) -> CheckpointStore:
    return SharedStore(current(), CheckpointStore(*args, **options))


class Saver:
    """A thread that saves checkpoints, one at a time; use as a context manager.

    A failure is raised by the next call, and at the end at the latest.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[None] | None = None
        self._thread = 0

    def submit(self, save: Callable[[], None]) -> None:
        """Have something saved, after what was given before."""
        self.wait()
        self._last = self._pool.submit(self._run, save)

    def _run(self, save: Callable[[], None]) -> None:
        self._thread = threading.get_ident()
        save()

    def wait(self) -> None:
        """Wait until what was given is saved; raise what went wrong."""
        if threading.get_ident() == self._thread:  # it is being saved
            return
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown()


class BackgroundStore(CheckpointStore):
    """A `CheckpointStore` that saves in a `Saver`'s thread; whatever looks into it waits for that."""

    def __init__(self, saver: Saver, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.saver = saver

    def save(self, step: int, tree: Any, note: dict[str, Any]) -> None:
        """Copy the arrays to the host, and have them saved; the caller may donate them at once."""
        host = jax.tree.map(np.array, flax.serialization.to_state_dict(tree))
        self.saver.submit(partial(super().save, step, host, note))

    def steps(self) -> list[int]:
        """Return the steps of finished checkpoints, ascending."""
        self.saver.wait()
        return super().steps()
