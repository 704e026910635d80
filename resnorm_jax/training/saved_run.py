"""A trained model, loaded from its run directory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from resnorm_jax.build import build_model, kernel_and_stride, told_lengths
from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, Examples, length_buckets
from resnorm_jax.data.fingerprint import fingerprint
from resnorm_jax.data.inputs import given_inputs
from resnorm_jax.errors import UserError
from resnorm_jax.modules.positions import POSITIONS
from resnorm_jax.training.calibration import calibration_line, read_calibration
from resnorm_jax.training.checkpoint import DamagedCheckpointError
from resnorm_jax.training.determinism import determinism
from resnorm_jax.training.doors import Door, using
from resnorm_jax.training.evaluation import predict
from resnorm_jax.training.identity import Identity, check_content
from resnorm_jax.training.initial import variables_like
from resnorm_jax.training.model_state import packed, unpacked
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.recipe import sum_names, with_low_rank, without_low_rank
from resnorm_jax.training.run_data import (
    PROGRAM,
    check_one_label,
    read_data,
    scaled,
    with_kept_tokenizer,
)
from resnorm_jax.training.run_directory import read_run
from resnorm_jax.training.saving import Stores
from resnorm_jax.training.step import StepOptions, create_state, scored_variables
from resnorm_jax.training.tasks import Task, fixed_thresholds, task_of


@dataclass
class Trained:
    """A run's model with the variables of one seed.

    Attributes:
      workdir: the run directory.
      config: of the run.
      identity: what else the run is; its ``content`` identifies the data.
      variables: ``params``, and what the model keeps beside them.
      step: updates behind them.
      kind: ``"best"`` or ``"last"``.
      parallel: what runs the model, over one device or, where it was trained in shares, over several.
      seed: the run's seed that they are of.
    """

    workdir: Path
    config: Config
    identity: Identity
    variables: dict[str, Any]
    step: int
    kind: str
    parallel: Door
    seed: int = 0

    @property
    def meta(self) -> dict[str, Any]:
        """What prepares inputs; `resnorm_jax.data.inputs.read_inputs` takes it."""
        return {**self.identity.data, "directory": str(self.workdir)}

    @property
    def params(self) -> Any:
        """The parameters of ``variables``."""
        return self.variables["params"]

    def dataset(self) -> Dataset:
        """Return the data that the run was trained on, prepared as they were.

        Raises:
          UserError: they are not the same any more: what differs is named.
        """
        raw = read_data(with_kept_tokenizer(self.config, self.meta))
        fix = "restore them; a file of other rows is given as --input=FILE to resnorm evaluate"
        check_content(self.identity.content, fingerprint(raw), str(self.workdir), fix)
        return scaled(raw, self.config)

    def log_probs(self, examples: Examples) -> np.ndarray:
        """Return log-probabilities ``[N, K]`` of rows prepared as the training rows were.

        Raises:
          UserError: for a row that is longer than the model's learned positions.
        """
        self.check_lengths(examples)
        size, most = self.config.train.batch_size, self.config.train.buckets
        buckets = length_buckets(examples.lengths, most, size, PROGRAM) if len(examples) else (1,)
        return predict(self.parallel, self.variables, examples, size, buckets)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by index."""
        return tuple(self.meta["classes"])

    @cached_property
    def calibration(self) -> dict[str, Any] | None:
        """What is known of this checkpoint's ``temperature`` (None where none is best), or None.

        It was fitted, when the run was scored, on its validation rows.

        Raises:
          UserError: the file is damaged.
        """
        return read_calibration(self.workdir, self.seed, self.step, self.kind)

    @property
    def temperature(self) -> float | None:
        """The temperature that calibrates this checkpoint's probabilities, or None."""
        return None if self.calibration is None else self.calibration["temperature"]

    def calibrated(self, log_probs: np.ndarray) -> np.ndarray:
        """Return log-probabilities ``[N, K]`` at the run's temperature; as they are without one."""
        if self.temperature is None:
            return log_probs
        return self.task.calibrate(log_probs, self.temperature)

    @property
    def task(self) -> Task:
        """What is asked of a row: one label, or any number of them."""
        return task_of(self.meta)

    @property
    def thresholds(self) -> np.ndarray | float:
        """Probabilities, not calibrated, from which a row has a label: one for all, or ``[K]``.

        Raises:
          UserError: they were to be found on validation rows, and were not for this checkpoint.
        """
        found = fixed_thresholds(self.config.train.threshold, self.calibration)
        if found is None:
            raise UserError(
                f"{self.workdir}: no thresholds were found for this checkpoint; start the training "
                "command again"
            )
        return found

    def one_label(self, command: str) -> Dataset:
        """Return the `dataset`, for a command that wants one label a row.

        Raises:
          UserError: rows have any number of labels; or see `dataset`.
        """
        dataset = self.dataset()
        check_one_label(dataset, command)
        return dataset

    def predict_proba(
        self, x: Any, lengths: Sequence[int] | None = None, *, calibrated: bool = False
    ) -> np.ndarray:
        """Return probabilities ``[N, K]`` float32 of rows given as numbers or texts.

        They sum to 1, but where a row has any number of labels.

        Args:
          x: rows as the training data had them, not scaled: an array ``[N, L, C]``, ``[N, L]`` of
            token ids, ``[N, H, W, C]``, or a list of rows, each of its own length; texts where the
            model learned from texts.
          lengths: ``[N]``, valid steps of each row of a padded array.
          calibrated: at the temperature fitted on the run's validation rows, as ``resnorm predict``
            gives them; without it, as the model itself says.

        Raises:
          UserError: naming the row, counted from 1; or calibrated ones are asked for, and the run has
            no temperature.
        """
        if calibrated and self.temperature is None:
            raise UserError(f"{self.workdir}: {calibration_line(self.calibration)}")
        log_probs = self.log_probs(given_inputs(x, self.meta, lengths))
        return np.exp(self.calibrated(log_probs) if calibrated else log_probs)

    def predict(self, x: Any, lengths: Sequence[int] | None = None) -> np.ndarray:
        """Return the most probable class' name of each row, ``[N]``; see `predict_proba`.

        Where a row has any number of labels, it is a tuple of their names, of `thresholds`.
        """
        return self.task.decide(self.predict_proba(x, lengths), self.classes, self.thresholds)

    @property
    def reads_texts(self) -> bool:
        """Whether the model learned from texts: a text is then a row."""
        return bool(self.meta["encoding"])

    @property
    def longest(self) -> int | None:
        """The most positions of a row that learned positions serve; None where there is no such end."""
        if not POSITIONS.get(self.config.model.positions).limited or self.meta["kind"] == "images":
            return None
        stride = kernel_and_stride(self.config.model, self.meta)[1]
        return stride * (self.config.model.max_length or -(-self.meta["max_length"] // stride))

    def check_lengths(self, examples: Examples) -> None:
        """Raise UserError for a row that is longer than the model's learned positions."""
        longest = self.longest
        if longest is not None and (examples.lengths > longest).any():
            row = int((examples.lengths > longest).argmax())
            raise UserError(
                f"row {row + 1} has {examples.lengths[row]} positions, the model learned {longest}; "
                "train with a larger model.max_length, or positions=sinusoidal"
            )


def load_trained(workdir: Path, seed: int | None = None, kind: str | None = None) -> Trained:
    """Load a run's variables.

    Args:
      workdir: the run directory.
      seed: which seed's; the run's first if None.
      kind: ``"best"`` or ``"last"``; the one that the run was scored on if None.

    Raises:
      UserError: if there is no run, or no sound checkpoint of that seed.
    """
    config, identity = read_run(workdir)
    meta = identity.data
    seed = config.seed if seed is None else seed
    kind = kind or config.train.select
    model, task = build_model(config, meta), task_of(meta)
    optimizer, _ = make_optimizer(config.optimizer, 10**9)
    like = jax.eval_shape(
        lambda: create_state(
            with_low_rank(config.optimizer, variables_like(model, meta), 0),
            optimizer, seed, config.train.ema, sum_names(config.train, task),
        )
    )  # fmt: skip
    like = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), like)
    wanted = scored_variables(like)
    stores = Stores.of(workdir, seed, config.train)
    store = stores.best if kind == "best" else stores.last
    if not store.steps():
        seeds = sorted(p.name for p in (workdir / "checkpoints").glob("seed_*"))
        raise UserError(f"{workdir}: no {kind} checkpoint of seed {seed}; it holds {seeds}")
    try:
        if kind == "best" and stores.last.steps():
            newest = stores.last.steps()[-1]
            stores.check_best(newest, stores.last.note(newest))
        step = store.ranked()[-1]
        found = store.restore(step, packed(wanted) if kind == "best" else like)
    except DamagedCheckpointError as error:
        raise UserError(f"damaged checkpoint: {error}; run the training command again") from None
    devices, door = using(config, jax.local_devices())
    same = determinism(config.train.deterministic, devices[0].platform)
    options = StepOptions(model.apply, optax.identity(), by_length=told_lengths(model), task=task)
    parallel = door(options, devices, same.options)
    variables = unpacked(found, wanted) if kind == "best" else scored_variables(found)
    variables = without_low_rank(config.optimizer, variables)
    return Trained(workdir, config, identity, variables, step, kind, parallel, seed)
