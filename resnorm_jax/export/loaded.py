"""An exported model, loaded and called: ``rn.load_exported(dir).predict(rows)``."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.data import Examples
from resnorm_jax.data.inputs import given_inputs
from resnorm_jax.data.pipeline import eval_batches
from resnorm_jax.errors import UserError
from resnorm_jax.export.description import read_description
from resnorm_jax.export.formats import FORMATS, Call
from resnorm_jax.training.tasks import Task, task_of

ROWS = 32  # of a batch


@dataclass(frozen=True)
class Exported:
    """A model that `resnorm export` wrote, with all that it takes from rows to classes.

    Attributes:
      call: the program itself: arrays as `about["inputs"]` lists them, of any number of rows and
        positions, to log-probabilities ``[b, K]``.
      about: what ``model.json`` says.
    """

    call: Call
    about: dict[str, Any]

    @property
    def meta(self) -> dict[str, Any]:
        """What prepares inputs; `resnorm_jax.data.inputs.read_inputs` takes it."""
        return self.about["preprocessing"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by index."""
        return tuple(self.about["classes"])

    @property
    def temperature(self) -> float | None:
        """The temperature that calibrates the probabilities, or None."""
        return self.about["temperature"]

    @property
    def task(self) -> Task:
        """What is asked of a row: one label, or any number of them."""
        return task_of(self.meta)

    def log_probs(self, examples: Examples) -> np.ndarray:
        """Return log-probabilities ``[N, K]`` of rows prepared as the training rows were.

        Raises:
          UserError: for a row that is longer than the program takes.
        """
        sizes = self.about["sizes"]["l"]
        stride, longest = sizes["positions"], int(examples.lengths.max())
        length = -(-longest // stride) * stride
        if sizes["most"] is not None and length > sizes["most"] * stride:
            row = int(examples.lengths.argmax()) + 1
            most = sizes["most"] * stride
            raise UserError(f"row {row} has {longest} positions; the exported model takes {most}")
        out = np.zeros((len(examples), len(self.classes)), np.float32)
        for batch in eval_batches(examples, min(ROWS, len(examples)), (length,)):
            inputs = [batch[each["name"]] for each in self.about["inputs"]]
            real = batch["rows"] >= 0
            out[batch["rows"][real]] = np.asarray(self.call(*inputs))[real]
        return out

    def predict_proba(
        self, x: Any, lengths: Sequence[int] | None = None, *, calibrated: bool = False
    ) -> np.ndarray:
        """Return probabilities ``[N, K]`` float32; arguments as of a run's ``predict_proba``.

        Raises:
          UserError: naming the row, counted from 1; or there is no temperature.
        """
        if calibrated and self.temperature is None:
            raise UserError("calibrated: the exported run had no temperature; leave it out")
        log_probs = self.log_probs(given_inputs(x, self.meta, lengths))
        if calibrated:
            log_probs = self.task.calibrate(log_probs, self.temperature or 1.0)
        return np.exp(log_probs)

    def predict(self, x: Any, lengths: Sequence[int] | None = None) -> np.ndarray:
        """Return the most probable class' name of each row, ``[N]``; or a tuple of its labels."""
        thresholds = np.array(self.about.get("thresholds", 0.5))
        return self.task.decide(self.predict_proba(x, lengths), self.classes, thresholds)


def load_exported(folder: str | Path) -> Exported:
    """Load a folder that ``resnorm export --format=stablehlo`` (or ``onnx``) wrote.

    What is in it is data, a program of XLA's operations included: no Python is run.

    Args:
      folder: its path.

    Raises:
      UserError: it holds no such model, or one that is damaged; a library is missing.
    """
    if not isinstance(folder, str | PathLike):
        raise TypeError(f"folder is {folder!r}; give the path of a folder")
    path = Path(folder)
    about = read_description(path)
    read = FORMATS[about["format"]].read
    if read is None:
        raise UserError(f"{path}: holds parameters alone; export with --format=stablehlo")
    return Exported(read(path), about)
