"""Masked pretraining: a run of its own in the run's directory, whose end is where the run begins.

It has its own steps, log and checkpoints, in ``pretrain/``. So a run that is killed in either phase
goes on from the checkpoint of that phase, and its bits are those of a run left alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from resnorm_jax.build import told_lengths
from resnorm_jax.config import Config, TrainConfig
from resnorm_jax.data import Dataset
from resnorm_jax.reporting.figures import draw_curves
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.loop import Run, train_seed
from resnorm_jax.training.masked import masked_model
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.profile import Profile
from resnorm_jax.training.recipe import whole
from resnorm_jax.training.step import StepOptions, TrainState, create_state

FOLDER = "pretrain"
SHOWN = 50  # points of the loss curve in the report
Variables = dict[str, Any]


@dataclass
class Pretraining:
    """The phase before classification.

    Attributes:
      config: of the run.
      model: that of the masked rows, with a head of its own.
      options: of its step.
      steps: of each seed.
      schedule: of its learning rate.
      run: what its seeds share; made by `begin`.
    """

    config: Config
    model: Any
    options: StepOptions
    steps: int
    schedule: Any
    run: Run | None = None
    _state: Callable[..., TrainState] = field(init=False)

    def __post_init__(self) -> None:
        def state(seed: jax.Array, variables: Any) -> TrainState:
            return create_state(variables, self.options.optimizer, seed, None, self.options.names)

        self._state = jax.jit(state)

    def begin(self, run: Run, parallel: Any) -> None:
        """Take what the classification's run has, with the programs of this phase.

        Validation and test rows are not looked at.
        """
        place = run.workdir / FOLDER
        self.run = replace(
            run, train=self.train(run.train), dataset=run.dataset.replace(valid=None),
            parallel=parallel, schedule=self.schedule, workdir=place,
            log=type(run.log)(place / "metrics.jsonl"), profile=Profile(), phase="pretraining",
        )  # fmt: skip

    def train(self, train: TrainConfig) -> TrainConfig:
        """Return the fields of this phase: nothing is evaluated, averaged or chosen."""
        return replace(
            train, steps=self.steps, ema=None, patience=None, select="last", score="test",
            label_smoothing=0.0, class_weights="none",
        )  # fmt: skip

    def first(self, variables: Variables, dataset: Dataset, buckets: Any, seed: int) -> Variables:
        """Return the variables that this phase starts from: a run's, but for the head."""
        own = init_variables(self.model, dataset, buckets, seed)["params"]
        body = {name: variables["params"][name] for name in own if name != "head"}
        return {**variables, "params": {**body, "head": own["head"]}}

    def __call__(self, variables: Variables, seed: int) -> Variables:
        """Pretrain a seed from a run's first variables; return those of classification."""
        run = self.run
        assert run is not None
        own = self.first(variables, run.dataset, run.buckets, seed)
        run.console.print(
            f"seed {seed}: masked pretraining, {self.steps} steps on the training rows",
            highlight=False,
        )
        outcome = train_seed(run, seed, self._state(np.uint32(seed), own), self.steps)
        found = run.parallel.host(outcome.variables)
        body = {n: tree for n, tree in found["params"].items() if n != "head"}
        return {**found, "params": {**variables["params"], **body}}

    def draw(self) -> None:
        """Draw the curves of all seeds."""
        assert self.run is not None
        data, model = self.run.dataset.name, self.config.model.arrangement
        draw_curves(
            self.run.log.rows(), self.run.workdir / "curves.png", f"{data}, {model}: pretraining"
        )

    def report(self, seed: int) -> dict[str, Any]:
        """Return the steps and the loss curve of a seed: at most `SHOWN` points, with the last."""
        assert self.run is not None
        rows = [r for r in self.run.log.rows() if r["seed"] == seed and r["split"] == "train"]
        every = -(-len(rows) // SHOWN)
        shown = rows[::-1][::every][::-1] if rows else []
        names = [name for name in ("step", "loss", "accuracy") if rows and name in rows[0]]
        return {"steps": self.steps, "curve": [{n: r[n] for n in names} for r in shown]}


def pretraining_of(config: Config, model: Any, meta: dict[str, Any]) -> Pretraining | None:
    """Return the phase before classification, or None where the config has none.

    Raises:
      UserError: for data that cannot be masked, or a field that is not read.
    """
    how = config.pretrain
    if how.updates is None:
        return None
    masked, objective = masked_model(config, model, meta)
    optimizer, schedule = make_optimizer(whole(config.optimizer, how.peak_rate), how.updates)
    train = config.train
    options = StepOptions(
        objective.applied(masked.apply), optimizer, accumulate=train.accumulate,
        log_every=train.log_every, by_length=told_lengths(masked), objective=objective,
    )  # fmt: skip
    return Pretraining(config, masked, options, how.updates, schedule)
