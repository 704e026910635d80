"""The training loop of one seed, read from top to bottom."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optax
from rich.console import Console

from resnorm_jax.config import TrainConfig
from resnorm_jax.data import Dataset, TrainBatches, iterate
from resnorm_jax.errors import Preempted
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.reporting.tensorboard import Scalars
from resnorm_jax.training.devices import check_replicated
from resnorm_jax.training.doors import Door
from resnorm_jax.training.evaluation import evaluate
from resnorm_jax.training.feed import put_ahead, together
from resnorm_jax.training.model_state import packed, unpacked
from resnorm_jax.training.nonfinite import Guard, RolledBackError
from resnorm_jax.training.patience import Patience
from resnorm_jax.training.phases import Phases
from resnorm_jax.training.preemption import Signals
from resnorm_jax.training.profile import Profile
from resnorm_jax.training.reporter import Reporter
from resnorm_jax.training.saving import Saver, Stores, merit
from resnorm_jax.training.step import TrainState, scored_variables
from resnorm_jax.training.watchdog import Watchdog


@dataclass
class Run:
    """What all seeds of a run share."""

    train: TrainConfig
    dataset: Dataset
    parallel: Door
    schedule: optax.Schedule
    buckets: tuple[int, ...]
    workdir: Path
    log: MetricsLog
    console: Console
    watchdog: Watchdog = field(default_factory=Watchdog)
    signals: Signals = field(default_factory=Signals)
    phases: Phases = field(default_factory=Phases)
    profile: Profile = field(default_factory=Profile)
    phase: str = ""  # of training, where there is another one

    def called(self, seed: int) -> str:
        """Return what a seed is called in what people read: ``"seed 0, pretraining"``."""
        return f"seed {seed}, {self.phase}" if self.phase else f"seed {seed}"

    def doing(self, activity: str) -> None:
        """Tell the watchdog what is done now; raise Preempted if a signal was received."""
        self.phases.lap()
        self.watchdog.doing(activity)
        self.signals.check()


@dataclass
class Outcome:
    """What a seed's training gave.

    Attributes:
      variables: those to be scored: last, averaged or best.
      step: updates behind them.
      seconds: spent training, over all sittings.
      examples_per_second: in this sitting, without the first step.
      counts: ``nonfinite_steps`` and ``rollbacks``; with early stopping ``stopped_at``, the step at
        which training ended before its time, or None.
    """

    variables: dict[str, Any]
    step: int
    seconds: float
    examples_per_second: float | None
    counts: dict[str, Any]

    @property
    def params(self) -> Any:
        """The parameters of ``variables``."""
        return self.variables["params"]


def train_seed(run: Run, seed: int, state: TrainState, total_steps: int) -> Outcome:
    """Train from ``state``, or from the newest checkpoint if there is one, to ``total_steps``.

    Raises:
      DivergedError: when a step or a score is not finite, and ``train.nonfinite`` has no other way.
      Preempted: after a signal; the state is saved.
    """
    with Saver() as saver, run.signals.held():
        stores = Stores.of(run.workdir, seed, run.train, run.console.print, saver)
        batches = TrainBatches(run.dataset.train, run.train.batch_size, run.buckets, seed)
        guard = Guard(run, seed, state, batches, stores.last)
        patience = Patience(run.train.patience)
        sitting = _Sitting(run, seed, total_steps, batches, stores, guard, patience)
        start = sitting.resume(state)
        with Progress(
            run.called(seed), total_steps, start=start[0], console=run.console
        ) as progress:
            while True:
                try:
                    state = sitting.go(*start, progress)
                    break
                except RolledBackError:
                    start = sitting.rolled_back()
        with run.phases("save"):
            return _outcome(run, state, stores, guard, progress.examples_per_second, patience,
                            total_steps)  # fmt: skip


Start = tuple[int, TrainState, dict[str, Any]]  # step, state on the host, note of the checkpoint


@dataclass
class _Sitting:
    """One seed's training in this process."""

    run: Run
    seed: int
    total_steps: int
    batches: TrainBatches
    stores: Stores
    guard: Guard
    patience: Patience
    seconds: float = 0.0  # of earlier processes
    began: float = field(default_factory=time.monotonic)
    resumed: int | None = None

    def resume(self, first: TrainState) -> Start:
        """Return where to start: the newest checkpoint, or the first state."""
        run, note = self.run, {}
        restored = self.stores.last.restore_latest(first)
        step, state = restored or (0, first)
        if restored is not None:
            note = self.stores.last.note(step)
            self.resumed, self.seconds = step, note.get("seconds", 0.0)
            self.guard.resume(note)
            self.patience.resume(note)
            if step < self.total_steps and not self.patience.over:
                run.console.print(f"{run.called(self.seed)}: resumed at step {step}")
        if run.train.select == "best":
            self.stores.check_best(step, note)
        return step, state, note

    def rolled_back(self) -> Start:
        """Return where to start after a rollback; what was saved later goes."""
        step, state = self.guard.restored()
        self.resumed = step
        self.stores.last.drop_after(step)
        note = self.stores.last.note(step) if step else {}
        self.patience.resume(note)
        return step, state, note

    def go(self, start: int, host: TrainState, note: Mapping[str, Any], progress: Progress):
        """Train from step ``start`` on; return the state after the last step."""
        run, guard, total, log = self.run, self.guard, self.total_steps, self.run.log
        if "log" in note:
            log.rewind(self.seed, note["log"])
        else:
            log.truncate(self.seed, start)
        state = run.parallel.replicate(host)
        every = evaluate_every(run.train, self.batches.steps_per_epoch, total)
        examples, offset = 0, guard.offset
        folder = run.workdir / "tensorboard" / f"seed_{self.seed}"
        with Scalars(folder, self.resumed, run.console.print) as board:
            reporter = Reporter(
                run, self.seed, progress, board, self.batches.steps_per_epoch, guard
            )  # fmt: skip
            if note.get("validate"):
                with run.phases("evaluation"):
                    self._validate(start, state, reporter)
            share = run.parallel.share(run.train.batch_size)
            until = start if self.patience.over else total
            numbered = iterate(self.batches, start + offset, until + offset, share)
            calls = together(
                numbered, run.train.updates_per_call,
                lambda index: self._attended(index - offset + 1, every),
            )  # fmt: skip
            for index, updates, batch, rows in put_ahead(run.parallel, run.phases, calls):
                step, done = index - offset, index - offset + updates
                ends = done == total
                run.watchdog.doing(f"{run.called(self.seed)} was at step {done}")
                traced = run.profile.step(done, state, run.parallel.programs)
                with traced, run.phases("dispatch"):
                    state, sums = run.parallel.train(state, batch)
                guard.expect(step, sums["finite"])
                examples += rows
                if step == start:
                    with run.phases("step"):
                        check_replicated(state)
                    progress.update(done, examples)  # what came before was compilation
                reporter.collect()  # the numbers of an earlier step: the device is not waited for
                if done % run.train.log_every == 0 or ends:
                    reporter.expect(done, sums, examples)
                    examples = 0
                if run.dataset.valid is not None and (done % every == 0 or ends):
                    reporter.settle()
                    with run.phases("evaluation"):
                        self._validate(done, state, reporter)
                if self.patience.over and not ends:
                    ends = True
                    self._stop_early(done, sums, examples, reporter)
                stop = run.signals.asked()
                if done % run.train.checkpoint_every == 0 or ends or stop:
                    reporter.settle()
                    if ends:
                        guard.check_end(done)
                    with run.phases("save"):
                        self._save(done, state)
                if stop:
                    raise self._stopped(stop, done)
                if ends:
                    break
        run.profile.end(state)
        return state

    def _attended(self, done: int, every: int) -> bool:
        """Return whether the host logs, scores or saves after so many updates."""
        train = self.run.train
        often = [train.log_every, train.checkpoint_every]
        if self.run.dataset.valid is not None:
            often.append(every)
        return done == self.total_steps or any(done % steps == 0 for steps in often)

    def _stop_early(self, done: int, sums: Any, examples: int, reporter: Reporter) -> None:
        if examples:  # since the last logged step
            reporter.expect(done, sums, examples)
            reporter.settle()
        self.run.console.print(
            f"seed {self.seed}: stopped at step {done} of {self.total_steps}: the last "
            f"{self.patience.since} evaluations were no better than the best",
            highlight=False,
        )

    def _save(self, done: int, state: TrainState, **more: Any) -> None:
        self.run.watchdog.doing(f"{self.run.called(self.seed)} saved step {done}")
        check_replicated(state)
        told = {
            "seconds": self.seconds + time.monotonic() - self.began,
            "log": self.run.log.mark(self.seed),
            "best": self.stores.best.ranked(),
        }
        self.stores.last.save(done, state, told | self.guard.note() | self.patience.note() | more)

    def _stopped(self, number: int, done: int) -> Preempted:
        self.stores.last.steps()  # waits until it is saved
        return Preempted(number, f"{self.run.called(self.seed)} saved at step {done}")

    def _validate(self, done: int, state: TrainState, reporter: Reporter) -> None:
        """Score the validation rows; where a signal ends that, save the step, to be validated later."""
        run, best = self.run, self.stores.best
        assert run.dataset.valid is not None
        variables = scored_variables(state)
        try:
            found = evaluate(
                run.parallel, variables, run.dataset.valid, run.dataset.classes,
                run.train.batch_size, run.buckets, run.doing,
            )  # fmt: skip
        except Preempted as stop:
            self._save(done, state, validate=True)
            raise self._stopped(stop.number, done) from None
        logged = run.parallel.options.task.logged
        numbers = {"loss": found["log_loss"], **{name: found[name] for name in logged}}
        reporter.write(done, "valid", **numbers)
        self.patience.saw(merit(numbers))
        if run.train.select == "best":
            known = best.ranked()
            if len(known) < best.keep or merit(numbers) > merit(best.note(known[0])):
                best.save(done, packed(variables), numbers)


def evaluate_every(train: TrainConfig, steps_per_epoch: int, total_steps: int) -> int:
    """Return how many steps lie between evaluations: an epoch, but at most 50 a run."""
    if train.evaluate_every is not None:
        return train.evaluate_every
    epochs = max(1, math.ceil(total_steps / steps_per_epoch / 50))
    return steps_per_epoch * epochs


def _outcome(
    run: Run, state: TrainState, stores: Stores, guard: Guard, speed: Any, patience: Patience,
    total_steps: int,
) -> Outcome:  # fmt: skip
    last = stores.last.steps()[-1]
    note = stores.last.note(last)
    variables, step = scored_variables(state), last
    if run.train.select == "best":
        stores.check_best(last, note)
        step = stores.best.ranked()[-1]
        variables = unpacked(stores.best.restore(step, packed(variables)), variables)
    counts: dict[str, Any] = dict(guard.told())
    if patience.most is not None:
        counts["stopped_at"] = last if last < total_steps else None
    return Outcome(variables, step, note["seconds"], speed, counts)
