"""The training loop of one seed, read from top to bottom."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax
from rich.console import Console

from resnorm_jax.config import TrainConfig
from resnorm_jax.data import Dataset, TrainBatches, iterate
from resnorm_jax.errors import DivergedError as DivergedError
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.reporting.tensorboard import Scalars
from resnorm_jax.training.checkpoint import CheckpointStore
from resnorm_jax.training.devices import DataParallel, check_replicated
from resnorm_jax.training.evaluation import evaluate
from resnorm_jax.training.model_state import packed, unpacked
from resnorm_jax.training.nonfinite import Guard, RolledBackError
from resnorm_jax.training.run_directory import seed_directory
from resnorm_jax.training.step import TrainState, scored_variables
from resnorm_jax.training.watchdog import Watchdog


@dataclass
class Run:
    """What all seeds of a run share."""

    train: TrainConfig
    dataset: Dataset
    parallel: DataParallel
    schedule: optax.Schedule
    buckets: tuple[int, ...]
    workdir: Path
    log: MetricsLog
    console: Console
    watchdog: Watchdog = field(default_factory=Watchdog)


@dataclass
class Outcome:
    """What a seed's training gave.

    Attributes:
      variables: those to be scored: last, averaged or best.
      step: updates behind them.
      seconds: spent training, over all sittings.
      examples_per_second: in this sitting, without the first step.
      best: what was noted of the best checkpoint, if that is scored.
      counts: ``nonfinite_steps`` and ``rollbacks``.
    """

    variables: dict[str, Any]
    step: int
    seconds: float
    examples_per_second: float | None
    best: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def params(self) -> Any:
        """The parameters of ``variables``."""
        return self.variables["params"]


def train_seed(run: Run, seed: int, state: TrainState, total_steps: int) -> Outcome:
    """Train from ``state``, or from the newest checkpoint if there is one, to ``total_steps``.

    Raises:
      DivergedError: when a step or a score is not finite, and ``train.nonfinite`` has no other way.
    """
    last = CheckpointStore(seed_directory(run.workdir, seed, "last"), 2, run.console.print)
    best = CheckpointStore(seed_directory(run.workdir, seed, "best"), 1, run.console.print)
    batches = TrainBatches(run.dataset.train, run.train.batch_size, run.buckets, seed)
    guard = Guard(
        run.train, seed, state, run.parallel, batches, last,
        run.workdir / "nonfinite" / f"seed_{seed}", partial(_print, run.console),
        partial(_logged_losses, run.log, seed),
    )  # fmt: skip
    start, seconds, resumed = 0, 0.0, None
    restored = last.restore_latest(state)
    if restored is not None:
        start, state = restored
        resumed, note = start, last.note(start)
        seconds = note["seconds"]
        guard.resume(note)
        if start < total_steps:
            run.console.print(f"seed {seed}: resumed at step {start}")
    began = time.monotonic()
    sitting = _Sitting(run, seed, total_steps, batches, last, best, guard, seconds, began)

    with Progress(f"seed {seed}", total_steps, start=start, console=run.console) as progress:
        while True:
            run.log.truncate(seed, start)
            board = Scalars(run.workdir / "tensorboard" / f"seed_{seed}", resumed)
            try:
                with board:
                    reporter = _Reporter(run, seed, progress, board, batches.steps_per_epoch, guard)
                    state = sitting.go(start, run.parallel.replicate(state), reporter)
                break
            except RolledBackError:
                start, state = guard.restored()
                resumed = start
        speed = progress.examples_per_second
    outcome = _outcome(run, state, best, last, seconds, speed, total_steps)
    return replace(outcome, counts={k: guard.counts[k] for k in ("nonfinite_steps", "rollbacks")})


@dataclass
class _Sitting:
    """One seed's training in this process."""

    run: Run
    seed: int
    total_steps: int
    batches: TrainBatches
    last: CheckpointStore
    best: CheckpointStore
    guard: Guard
    seconds: float
    began: float

    def go(self, start: int, state: TrainState, reporter: "_Reporter") -> TrainState:
        """Train from step ``start`` on; return the state after the last step."""
        run, guard, total = self.run, self.guard, self.total_steps
        every = evaluate_every(run.train, self.batches.steps_per_epoch, total)
        examples, offset = 0, guard.offset
        for index, batch in iterate(self.batches, start + offset, total + offset):
            step, done = index - offset, index - offset + 1
            ends = done == total
            run.watchdog.doing(f"seed {self.seed} was at step {done}")
            state, sums = run.parallel.train(state, batch)
            guard.expect(step, sums["finite"])
            examples += int(batch["weight"].sum())
            if step == start:
                check_replicated(state)
                reporter.progress.update(done, examples)  # what came before was compilation
            reporter.collect()  # the numbers of an earlier step: the device is not waited for
            if done % run.train.log_every == 0 or ends:
                reporter.expect(done, sums, examples)
                examples = 0
            if run.dataset.valid is not None and (done % every == 0 or ends):
                reporter.settle()
                _validate(run, self.seed, done, state, reporter, self.best)
            if done % run.train.checkpoint_every == 0 or ends:
                reporter.settle()
                if ends:
                    guard.check_end(total)
                self._save(done, state)
        return state

    def _save(self, done: int, state: TrainState) -> None:
        self.run.watchdog.doing(f"seed {self.seed} saved step {done}")
        check_replicated(state)
        spent = self.seconds + time.monotonic() - self.began
        self.last.save(done, state, {"seconds": spent, **self.guard.note()})


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _logged_losses(log: MetricsLog, seed: int) -> list[float]:
    rows = [r for r in log.rows() if r["seed"] == seed and r["split"] == "train"]
    return [r["loss"] for r in rows if r.get("loss") is not None]


def evaluate_every(train: TrainConfig, steps_per_epoch: int, total_steps: int) -> int:
    """Return how many steps lie between evaluations: an epoch, but at most 50 a run."""
    if train.evaluate_every is not None:
        return train.evaluate_every
    epochs = max(1, math.ceil(total_steps / steps_per_epoch / 50))
    return steps_per_epoch * epochs


class _Reporter:
    """Reads numbers off the device one step late, and writes them wherever they are looked at."""

    def __init__(
        self, run: Run, seed: int, progress: Progress, board: Scalars, epoch: int, guard: Guard
    ):
        self.run, self.seed, self.progress, self.board = run, seed, progress, board
        self.steps_per_epoch, self.guard = epoch, guard
        self._pending: tuple[int, Mapping[str, jax.Array], int] | None = None

    def expect(self, step: int, sums: Mapping[str, jax.Array], examples: int) -> None:
        """Keep the sums of a step, to be read when the next step is on its way."""
        self._pending = (step, sums, examples)

    def collect(self) -> None:
        """Read and write what is pending, if anything."""
        if self._pending is None:
            return
        (step, sums, examples), self._pending = self._pending, None
        flags, sums = jax.device_get((self.guard.pending(), sums))
        self.guard.read(flags)
        host = {name: float(value) for name, value in sums.items()}
        # Without a finite step since the row before there is no loss: NaN, null in the log.
        count, steps = host["count"] or math.nan, host["steps"] or math.nan
        loss, accuracy = host["loss"] / count, host["correct"] / count
        counts = {k: self.guard.counts[k] for k in ("nonfinite_steps", "rollbacks")}
        self.write(
            step,
            "train",
            loss=loss,
            accuracy=accuracy,
            grad_norm=host["grad_norm"] / steps,
            learning_rate=float(self.run.schedule(step - 1)),
            **{name: count for name, count in counts.items() if count},
        )
        self.progress.update(step, examples, loss=loss, accuracy=accuracy)

    def settle(self) -> None:
        """Read all that is pending, flags too: what follows uses the state."""
        self.collect()
        if self.guard.pending():
            self.guard.read(jax.device_get(self.guard.pending()))

    def write(self, step: int, split: str, **numbers: float) -> None:
        """Write a row to the log and to TensorBoard."""
        epoch = round(step / self.steps_per_epoch, 4)
        row = {"seed": self.seed, "step": step, "epoch": epoch, "split": split, **numbers}
        self.run.log.append(row)
        self.board.write(row)


def _validate(run: Run, seed: int, step: int, state: TrainState, reporter, best) -> None:
    assert run.dataset.valid is not None
    variables = scored_variables(state)
    found = evaluate(
        run.parallel, variables, run.dataset.valid, run.dataset.classes, run.train.batch_size,
        run.buckets, run.watchdog.doing,
    )  # fmt: skip
    numbers = {"loss": found["log_loss"], **{k: found[k] for k in ("accuracy", "macro_f1")}}
    reporter.write(step, "valid", **numbers)
    known = best.steps()
    if run.train.select == "best" and (not known or _better(numbers, best.note(known[-1]))):
        best.save(step, packed(variables), numbers)


def _better(new: Mapping[str, float], old: Mapping[str, float]) -> bool:
    return (new["accuracy"], -new["loss"]) > (old["accuracy"], -old["loss"])


def _outcome(run, state, best, last, seconds, speed, total_steps) -> Outcome:
    seconds = last.note(last.steps()[-1])["seconds"]
    variables = scored_variables(state)
    if run.train.select == "best":
        found = best.restore_latest(packed(variables))
        if found is not None:
            step, tree = found
            return Outcome(unpacked(tree, variables), step, seconds, speed, best.note(step))
    return Outcome(variables, total_steps, seconds, speed)
