"""The training loop of one seed, read from top to bottom."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import optax
from rich.console import Console

from resnorm_jax.config import TrainConfig
from resnorm_jax.data import Dataset, TrainBatches, iterate
from resnorm_jax.errors import DivergedError, Preempted
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.reporting.tensorboard import Scalars
from resnorm_jax.training.devices import DataParallel, check_replicated
from resnorm_jax.training.evaluation import evaluate
from resnorm_jax.training.model_state import packed, unpacked
from resnorm_jax.training.preemption import Signals
from resnorm_jax.training.saving import Saver, Stores, merit
from resnorm_jax.training.step import TrainState, scored_variables


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
    signals: Signals = field(default_factory=Signals)


@dataclass
class Outcome:
    """What a seed's training gave.

    Attributes:
      variables: those to be scored: last, averaged or best.
      step: updates behind them.
      seconds: spent training, over all sittings.
      examples: rows seen in this sitting, and the seconds that it took without the first step.
    """

    variables: dict[str, Any]
    step: int
    seconds: float
    examples_per_second: float | None
    best: dict[str, float] = field(default_factory=dict)

    @property
    def params(self) -> Any:
        """The parameters of ``variables``."""
        return self.variables["params"]


def train_seed(run: Run, seed: int, state: TrainState, total_steps: int) -> Outcome:
    """Train from ``state``, or from the newest checkpoint if there is one, to ``total_steps``.

    Raises:
      DivergedError: when the loss is not finite; names the steps.
    """
    stores = Stores.of(run.workdir, seed, run.train, run.console.print)
    start, note = 0, {}
    restored = stores.last.restore_latest(state)
    if restored is not None:
        start, state = restored
        note = stores.last.note(start)
        if start < total_steps:
            run.console.print(f"seed {seed}: resumed at step {start}")
    if run.train.select == "best":
        stores.check_best(start, note)
    _rewind(run.log, seed, start, note)
    state = run.parallel.replicate(state)
    seconds, began = note.get("seconds", 0.0), time.monotonic()

    batches = TrainBatches(run.dataset.train, run.train.batch_size, run.buckets, seed)
    every = evaluate_every(run.train, batches.steps_per_epoch, total_steps)
    examples = 0
    with (
        Progress(f"seed {seed}", total_steps, start=start, console=run.console) as progress,
        Scalars(run.workdir / "tensorboard" / f"seed_{seed}", start if restored else None) as board,
        Saver() as saver,
        run.signals.held(),
    ):
        reporter = _Reporter(run, seed, progress, board, batches.steps_per_epoch)

        def save(done: int, **more: Any) -> None:
            saver.wait()  # the best of earlier steps is known then
            check_replicated(state)
            spent = seconds + time.monotonic() - began
            told = {"seconds": spent, "log": run.log.mark(seed), "best": stores.best.ranked()}
            saver.save(stores.last, done, state, told | more)

        def validate(done: int) -> None:
            """Also where a signal ends it: the step is saved, and validated when the run goes on."""
            try:
                _validate(run, seed, done, state, reporter, stores.best, saver)
            except Preempted as stop:
                save(done, validate=True)
                saver.wait()
                raise _stopped(stop.number, seed, done) from None

        if note.get("validate"):
            validate(start)
        for index, batch in iterate(batches, start, total_steps):
            state, sums = run.parallel.train(state, batch)
            done = index + 1
            examples += int(batch["weight"].sum())
            ends = done == total_steps
            if index == start:
                check_replicated(state)
                progress.update(done, examples)  # what came before was compilation
            reporter.collect()  # the numbers of an earlier step: the device is not waited for
            if done % run.train.log_every == 0 or ends:
                reporter.expect(done, sums, examples)
                examples = 0
            if run.dataset.valid is not None and (done % every == 0 or ends):
                reporter.collect()
                validate(done)
            stop = run.signals.received
            if done % run.train.checkpoint_every == 0 or ends or stop:
                reporter.collect()
                save(done)
            if stop:
                saver.wait()
                raise _stopped(stop, seed, done)
        speed = progress.examples_per_second
    return _outcome(run, state, stores, speed, total_steps)


def _rewind(log: MetricsLog, seed: int, start: int, note: Mapping[str, Any]) -> None:
    """Have the log as it was when the checkpoint was saved."""
    if "log" in note:
        log.rewind(seed, note["log"])
    else:
        log.truncate(seed, start)


def _stopped(number: int, seed: int, step: int) -> Preempted:
    return Preempted(number, f"seed {seed} saved at step {step}")


def evaluate_every(train: TrainConfig, steps_per_epoch: int, total_steps: int) -> int:
    """Return how many steps lie between evaluations: an epoch, but at most 50 a run."""
    if train.evaluate_every is not None:
        return train.evaluate_every
    epochs = max(1, math.ceil(total_steps / steps_per_epoch / 50))
    return steps_per_epoch * epochs


class _Reporter:
    """Reads numbers off the device one step late, and writes them wherever they are looked at."""

    def __init__(self, run: Run, seed: int, progress: Progress, board: Scalars, epoch: int):
        self.run, self.seed, self.progress, self.board = run, seed, progress, board
        self.steps_per_epoch = epoch
        self._pending: tuple[int, Mapping[str, jax.Array], int] | None = None

    def expect(self, step: int, sums: Mapping[str, jax.Array], examples: int) -> None:
        """Keep the sums of a step, to be read when the next step is on its way."""
        self._pending = (step, sums, examples)

    def collect(self) -> None:
        """Read and write what is pending, if anything."""
        if self._pending is None:
            return
        (step, sums, examples), self._pending = self._pending, None
        host = {name: float(value) for name, value in jax.device_get(sums).items()}
        count, steps = max(host["count"], 1.0), max(host["steps"], 1.0)
        loss, accuracy = host["loss"] / count, host["correct"] / count
        if not math.isfinite(loss):
            raise DivergedError(
                f"seed {self.seed}: the loss is {loss} within steps "
                f"{step - int(steps) + 1} to {step}; try a lower optimizer.learning_rate, more "
                "optimizer.warmup or another model.arrangement"
            )
        self.write(
            step,
            "train",
            loss=loss,
            accuracy=accuracy,
            grad_norm=host["grad_norm"] / steps,
            learning_rate=float(self.run.schedule(step - 1)),
        )
        self.progress.update(step, examples, loss=loss, accuracy=accuracy)

    def write(self, step: int, split: str, **numbers: float) -> None:
        """Write a row to the log and to TensorBoard."""
        epoch = round(step / self.steps_per_epoch, 4)
        row = {"seed": self.seed, "step": step, "epoch": epoch, "split": split, **numbers}
        self.run.log.append(row)
        self.board.write(row)


def _validate(run: Run, seed: int, step: int, state: TrainState, reporter, best, saver) -> None:
    assert run.dataset.valid is not None
    variables = scored_variables(state)
    found = evaluate(
        run.parallel, variables, run.dataset.valid, run.dataset.classes, run.train.batch_size,
        run.buckets, run.signals.check,
    )  # fmt: skip
    numbers = {"loss": found["log_loss"], **{k: found[k] for k in ("accuracy", "macro_f1")}}
    reporter.write(step, "valid", **numbers)
    saver.wait()
    known = best.ranked()
    if run.train.select == "best" and (
        len(known) < best.keep or merit(numbers) > merit(best.note(known[0]))
    ):
        saver.save(best, step, packed(variables), numbers)


def _outcome(run: Run, state: TrainState, stores: Stores, speed, total_steps: int) -> Outcome:
    note = stores.last.note(stores.last.steps()[-1])
    variables = scored_variables(state)
    if run.train.select == "last":
        return Outcome(variables, total_steps, note["seconds"], speed)
    stores.check_best(total_steps, note)
    step = stores.best.ranked()[-1]
    tree = stores.best.restore(step, packed(variables))
    return Outcome(unpacked(tree, variables), step, note["seconds"], speed, stores.best.note(step))
