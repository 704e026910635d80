"""What a run does about a step that is not finite: abort, skip, or roll back."""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np
from rich.console import Console

from resnorm_jax.config import TrainConfig
from resnorm_jax.data import TrainBatches
from resnorm_jax.errors import DivergedError
from resnorm_jax.reporting.files import MetricsLog, write_bytes, write_json
from resnorm_jax.training.advice import bad_data_rows, explained
from resnorm_jax.training.checkpoint import CheckpointStore, DamagedCheckpointError
from resnorm_jax.training.doors import Door
from resnorm_jax.training.forensics import examine
from resnorm_jax.training.step import TrainState

PATIENCE = 50  # steps skipped one after the other: what follows would be no training
COUNTS = ("nonfinite_steps", "rollbacks", "batch_offset", "skipped_in_a_row")


class RolledBackError(Exception):
    """Training goes on from an earlier step."""


class Guarded(Protocol):
    """Of a run: what runs its steps, and where it writes."""

    train: TrainConfig
    parallel: Door
    workdir: Path
    log: MetricsLog
    console: Console


class Guard:
    """Counts one seed's steps that are not finite, and does what ``train.nonfinite`` says.

    Step s takes batch ``s + offset``. A rollback from step s to c adds ``s - c + 1`` to the offset, so
    that the batches between are passed over. Counts and offset are part of a checkpoint's note: the
    batch stays a function of what is saved and the step.

    Args:
      run: of the seed.
      seed: its number.
      first: the state before the first update; kept on the host until there is a checkpoint.
      batches: of the seed.
      store: of checkpoints.
    """

    def __init__(
        self,
        run: Guarded,
        seed: int,
        first: TrainState,
        batches: TrainBatches,
        store: CheckpointStore,
    ) -> None:
        self.run, self.seed, self.batches, self.store = run, seed, batches, store
        self.train, self.parallel = run.train, run.parallel
        self.folder = run.workdir / "nonfinite" / f"seed_{seed}"
        self.first = self.parallel.host(first)  # the state itself is donated
        self.counts = dict.fromkeys(COUNTS, 0)
        self._flags: list[tuple[int, jax.Array]] = []
        self._told = False

    @property
    def offset(self) -> int:
        """How much later a step's batch stands than the step."""
        return self.counts["batch_offset"]

    def say(self, line: str) -> None:
        """Print a line."""
        self.run.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def told(self) -> dict[str, int]:
        """Return the counts that logs and reports have."""
        return {name: self.counts[name] for name in ("nonfinite_steps", "rollbacks")}

    def losses(self) -> list[float]:
        """Return the losses logged so far."""
        rows = [r for r in self.run.log.rows() if r["seed"] == self.seed and r["split"] == "train"]
        return [r["loss"] for r in rows if r.get("loss") is not None]

    def note(self) -> dict[str, int]:
        """Return what a checkpoint's note holds of this."""
        return dict(self.counts)

    def resume(self, note: Mapping[str, Any]) -> None:
        """Take up the counts of a checkpoint's note; earlier versions' have none."""
        self.counts = {name: int(note.get(name, 0)) for name in COUNTS}

    def expect(self, step: int, finite: jax.Array) -> None:
        """Keep the flag of a step (0, 1, ...), or those of it and the next ones, to be read later."""
        self._flags.append((step, finite))

    def pending(self) -> list[jax.Array]:
        """Return the flags that are not read yet, on the device."""
        return [flag for _, flag in self._flags]

    def read(self, flags: list[Any]) -> None:
        """Take the flags as read, ``flags`` those of `pending`, and act on those that are False.

        Raises:
          DivergedError: if the run is to end.
          RolledBackError: if it is to go on from `restored`.
        """
        steps = [step for step, _ in self._flags][: len(flags)]
        self._flags = self._flags[len(flags) :]
        for first, several in zip(steps, flags, strict=True):
            for step, finite in enumerate(np.atleast_1d(several), first):
                if finite:
                    self.counts["skipped_in_a_row"] = 0
                else:
                    self._act(step)

    def check_end(self, steps: int) -> None:
        """Raise DivergedError if no step of the run changed anything: there is nothing to score."""
        if self.counts["skipped_in_a_row"] >= steps:
            raise DivergedError(f"{self._examined(0)}; every one of {steps} steps was skipped")

    def _act(self, step: int) -> None:
        self.counts["nonfinite_steps"] += 1
        self.counts["skipped_in_a_row"] += 1
        policy, row = self.train.nonfinite, self.counts["skipped_in_a_row"]
        if policy == "abort":
            raise DivergedError(self._examined(step))
        if policy == "skip":
            if row >= PATIENCE:
                raise DivergedError(f"{self._examined(step)}; {row} steps were skipped in a row")
            if not self._told:  # of the first alone: it does the steps before it again
                self.say(self._examined(step))
            self._told = True
            self.say(f"seed {self.seed}: step {step + 1} is not finite: skipped, {self._total()}")
            return
        if self.counts["rollbacks"] >= self.train.max_rollbacks:
            done = self.counts["rollbacks"]
            raise DivergedError(f"{self._examined(step)}; after {done} rollbacks")
        self.say(self._examined(step))
        self._flags.clear()
        self.counts["skipped_in_a_row"] = 0
        self.counts["rollbacks"] += 1
        self._target, _ = self._good(step)
        self.counts["batch_offset"] += step - self._target + 1
        self.say(
            f"seed {self.seed}: rolled back from step {step + 1} to {self._target}, "
            f"rollback {self.counts['rollbacks']} of at most {self.train.max_rollbacks}"
        )
        raise RolledBackError

    def _total(self) -> str:
        return f"{self.counts['nonfinite_steps']} in all"

    def restored(self) -> tuple[int, TrainState]:
        """Return the step to which the run was rolled back, and its state."""
        return self._target, self._good(self._target)[1]

    def _good(self, step: int) -> tuple[int, TrainState]:
        """Return the newest periodic checkpoint at or before a step, or the first state.

        Periodic ones alone: what an interruption saved must not change where a run goes on.
        """
        every = self.train.checkpoint_every
        for found in reversed(self.store.steps()):
            if found > step or found % every:
                continue
            try:
                return found, self.store.restore(found, self.first)
            except DamagedCheckpointError as error:
                self.say(f"damaged checkpoint passed over: {error}")
        return 0, jax.tree.map(np.array, self.first)  # what it becomes on a device is donated

    def _examined(self, step: int) -> str:
        """Do the step again, watched; keep its batch; return a line on what was found."""
        start, state = self._good(step)
        again = self.parallel.replicate(state)
        for earlier in range(start, step):
            again, _ = self.parallel.train(again, self.batches.batch_at(earlier + self.offset))
        state, index = self.parallel.host(again), step + self.offset
        batch, numbers = self.batches.batch_at(index), self.batches.rows_at(index) + 1
        options, devices = self.parallel.options, self.parallel.shares
        found = examine(options, state, batch, devices)
        odd = bad_data_rows(batch)
        found = replace(found, rows=odd) if len(odd) else found
        why, advice = explained(self.train, options, state, batch, found, devices, self.losses())
        rows = sorted({int(n) for n in numbers[found.rows]})
        folder = self.folder / f"step_{step + 1}"
        self._keep(folder, batch, numbers, {
            "step": step + 1, "seed": self.seed, "batch": index, "checkpoint": start,
            "phase": found.phase, "place": found.place, "rows": rows, "why": why, "advice": advice,
        })  # fmt: skip
        return (
            f"seed {self.seed}: step {step + 1} is not finite: {found.phase}: {found.place}"
            f"{_rows(rows, len(set(numbers.tolist())))}; {why}; {advice}; its batch is in {folder}"
        )

    def _keep(self, folder: Path, batch: Any, numbers: np.ndarray, record: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **batch, rows=numbers)
        write_bytes(folder / "batch.npz", buffer.getvalue())
        write_json(folder / "finding.json", record)


def _rows(rows: list[int], size: int) -> str:
    if not rows or len(rows) == size:
        return ", all rows of the batch" if rows else ""
    shown = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return f", training row{'s' * (len(rows) > 1)} {shown}"
