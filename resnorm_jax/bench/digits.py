"""Every norm by name under one recipe: a small Pre-LN Transformer that reads handwritten digits.

The recipe was chosen on validation rows, so that every norm learns; see `recipe`. It compares how
norms train in one place, not how good they could be: nothing is tuned for any of them.
"""

import io
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from resnorm_jax import norms
from resnorm_jax.arrangements import DEFAULT
from resnorm_jax.config import Config, experiment, from_dict
from resnorm_jax.data import length_buckets, majority_accuracy
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.training.devices import DataParallel
from resnorm_jax.training.experiment import prepare_data, run_experiment, total_steps
from resnorm_jax.training.loop import DivergedError

QUICK = "model.width=8,model.heads=2,model.depth=1,epochs=1"


def recipe(norm: str, settings: str = "") -> Config:
    """Return the config that trains ``norm``: that of configs/digits.py, smaller and shorter.

    Learning rate, epochs, dropout and width were chosen on validation rows, by the weakest norms:
    ``detach``, ``l2`` and ``rms_partial``, which wants a width of which 6.25 % are some features.

    Args:
      norm: name of a norm.
      settings: comma-separated presets and settings, as after the colon of ``--config``.
    """
    config = experiment(
        settings,
        data={"source": "digits", "view": "rows"},
        model={
            "width": 64, "depth": 2, "heads": 4, "dropout": 0.2, "kernel": 3,
            "arrangement": DEFAULT, "norm": norm,
        },
        optimizer={"learning_rate": 6e-3, "warmup": 0.1, "weight_decay": 0.0},
        train={"batch_size": 64, "epochs": 25, "scale": False, "checkpoint_every": 10**6},
    )  # fmt: skip
    config.devices = 1
    return from_dict(config.to_dict())


def digits(names: Sequence[str], settings: str, console: Console) -> dict[str, Any]:
    """Train a classifier with each norm.

    Args:
      names: norms.
      settings: changes to the recipe.
      console: shows how far it is, and how long it will take.

    Returns:
      ``recipe``, the config but for the norm; ``majority``, the accuracy of the majority class on
      the scored rows; ``seconds``; and ``rows``, one for each norm, see `train_norm`.
    """
    config = recipe(norms.names()[0], settings)
    dataset = prepare_data(config)
    steps = total_steps(config, dataset, length_buckets(dataset.train.lengths, 1))
    began, rows = time.perf_counter(), []
    with Progress("digits", steps * len(names), console=console) as progress:
        for index, name in enumerate(names):
            before = index * steps

            def stepped(step: int, examples: int, before: int = before) -> None:
                progress.update(before + step, examples)

            rows.append(train_norm(name, settings, stepped))
            progress.update(before + steps)
            progress.print(f"{name:<20} {outcome(rows[-1])}")
    described = asdict(config)
    described["model"].pop("norm")
    return {
        "recipe": described,
        "rows_scored": len(dataset.test),
        "majority": majority_accuracy(dataset),
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
    }


def train_norm(
    name: str, settings: str = "", stepped: Callable[[int, int], None] = lambda step, examples: None
) -> dict[str, Any]:
    """Train and score one norm.

    Args:
      name: of the norm.
      settings: changes to the recipe.
      stepped: told after each step how many were done, and how many examples that step saw.

    Returns:
      ``norm``; ``status``, ``"ok"``, ``"diverged"`` or ``"failed"``, with the reason in ``why``;
      ``accuracy`` and ``log_loss``, None unless ok; ``step_ms``, the median time of a step, and
      ``seconds``, of everything, compilation included.
    """
    times: list[float] = []

    class Timed(DataParallel):
        """Waits for each step, and notes how long it took."""

        def train(self, state: Any, batch: Any) -> Any:
            began = time.perf_counter()
            out = jax.block_until_ready(super().train(state, batch))
            times.append(time.perf_counter() - began)
            stepped(len(times), int(batch["weight"].sum()))
            return out

    began, row = time.perf_counter(), {"status": "ok", "why": ""}
    score: dict[str, float | None] = {"accuracy": None, "log_loss": None}
    quiet = Console(file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = run_experiment(
                recipe(name, settings), Path(folder) / "run", quiet, parallel=Timed
            )
            score = {key: report[key] for key in score}
            if not math.isfinite(report["log_loss"]):
                row = {"status": "diverged", "why": "the log loss is not finite"}
        except DivergedError as error:
            row = {"status": "diverged", "why": str(error)}
        except Exception as error:  # one norm that cannot run must not cost the table of the others
            row = {"status": "failed", "why": f"{type(error).__name__}: {error}"}
    later = times[1:]  # the first compiles
    return {
        "norm": name,
        **row,
        **score,
        "step_ms": float(np.median(later)) * 1e3 if later else None,
        "steps": len(times),
        "seconds": round(time.perf_counter() - began, 2),
    }


def outcome(row: dict[str, Any]) -> str:
    """Return what came of one norm, for people."""
    if row["status"] != "ok":
        return f"{row['status']}: {row['why'].splitlines()[0] if row['why'] else ''}"
    return f"{100 * row['accuracy']:.2f} %  {row['step_ms']:.2f} ms a step"
