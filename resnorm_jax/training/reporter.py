"""The numbers of training: read off the device one step late, and written where people look."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import optax

from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.reporting.tensorboard import Scalars
from resnorm_jax.training.nonfinite import Guard
from resnorm_jax.training.phases import Phases


class Told(Protocol):
    """Of a run: its log, the learning rate of each step, and what counts its time."""

    log: MetricsLog
    schedule: optax.Schedule
    phases: Phases


class Reporter:
    """Reads sums and flags of steps when the next step is on its way, and writes them.

    Args:
      run: to whose log is written.
      seed: of the rows.
      progress: shown to people.
      board: TensorBoard's.
      epoch: steps of one.
      guard: acts on the flags of steps that are not finite.
    """

    def __init__(
        self, run: Told, seed: int, progress: Progress, board: Scalars, epoch: int, guard: Guard
    ) -> None:
        self.run, self.seed, self.progress, self.board = run, seed, progress, board
        self.steps_per_epoch, self.guard = epoch, guard
        self._pending: tuple[int, Mapping[str, Any], int] | None = None

    def expect(self, step: int, sums: Mapping[str, jax.Array], examples: int) -> None:
        """Keep the sums of a step, to be read when the next step is on its way."""
        # The rate too: a device computes it after the steps that it was given, and is not waited for.
        rate = self.run.schedule(step - 1)
        self._pending = (step, {**sums, "learning_rate": rate}, examples)

    def collect(self) -> None:
        """Read and write what is pending, if anything."""
        if self._pending is None:
            return
        (step, sums, examples), self._pending = self._pending, None
        with self.run.phases("step"):
            flags, sums = jax.device_get((self.guard.pending(), sums))
        self.guard.read(flags)
        host = {name: float(value) for name, value in sums.items() if name != "finite"}
        # Without a finite step since the row before there is no loss: NaN, null in the log.
        count, steps = host["count"] or math.nan, host["steps"] or math.nan
        shown = {"loss": host["loss"] / (host.get("mass", count) or math.nan)}
        if "correct" in host:
            shown["accuracy"] = host["correct"] / count
        if "hits" in host:
            shown["micro_f1"] = 2 * host["hits"] / ((host["said"] + host["true"]) or math.nan)
        self.write(
            step,
            "train",
            **shown,
            grad_norm=host["grad_norm"] / steps,
            learning_rate=host["learning_rate"],
            **{name: count for name, count in self.guard.told().items() if count},
        )
        self.progress.update(step, examples, **shown)

    def settle(self) -> None:
        """Read all that is pending, flags too: what follows uses the state."""
        self.collect()
        if self.guard.pending():
            with self.run.phases("step"):
                flags = jax.device_get(self.guard.pending())
            self.guard.read(flags)

    def write(self, step: int, split: str, **numbers: float) -> None:
        """Write a row to the log and to TensorBoard."""
        epoch = round(step / self.steps_per_epoch, 4)
        row: dict[str, Any] = {
            "seed": self.seed, "step": step, "epoch": epoch, "split": split, **numbers,
        }  # fmt: skip
        self.run.log.append(row)
        self.board.write(row)
