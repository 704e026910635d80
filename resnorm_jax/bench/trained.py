"""Train a small classifier with every norm, arrangement or stream under one recipe: one table."""

import io
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from resnorm_jax import arrangements, norms
from resnorm_jax.config import Config, experiment, from_dict
from resnorm_jax.data import length_buckets, majority_accuracy
from resnorm_jax.ops.streams import STREAMS
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.training.devices import DataParallel
from resnorm_jax.training.experiment import prepare_data, run_experiment, total_steps
from resnorm_jax.training.loop import DivergedError

# What may be compared: a field of the model, and the names that it takes.
MENUS: dict[str, Callable[[], tuple[str, ...]]] = {
    "norm": norms.names,
    "arrangement": arrangements.names,
    "stream": STREAMS.names,
}
QUICK = "model.width=8,model.heads=2,epochs=1,seeds=1"


@dataclass(frozen=True)
class Recipe:
    """A data set, and settings that are the same for all.

    Attributes:
      sections: of `resnorm_jax.config.experiment`.
      depths: numbers of layers.
    """

    sections: Mapping[str, Any]
    depths: tuple[int, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)


ALIKE = {"scale": False, "checkpoint_every": 10**6}
RECIPES = {
    # Learning rate, epochs, dropout and width were chosen on validation rows, by the weakest norms:
    # detach, l2 and rms_partial, which wants a width of which 6.25 % are some features.
    "digits": Recipe(
        {
            "data": {"source": "digits", "view": "rows"},
            "model": {"width": 64, "heads": 4, "dropout": 0.2, "kernel": 3},
            "optimizer": {"learning_rate": 6e-3, "warmup": 0.1, "weight_decay": 0.0},
            "train": {"batch_size": 64, "epochs": 25, **ALIKE},
        },
        depths=(2,),
    ),
    "vowels": Recipe(
        {
            "data": {"source": "series", "name": "JapaneseVowels"},
            "model": {"width": 32, "heads": 4, "dropout": 0.1, "pooling": "max"},
            "optimizer": {"learning_rate": 1e-3, "warmup": 0.1, "weight_decay": 0.05},
            "train": {"batch_size": 32, "epochs": 20, "buckets": 1, **ALIKE, "scale": True},
        },
        depths=(3, 24),
        extra={"seeds": 3},
    ),
}


def recipe(data: str, settings: str = "", depth: int | None = None, **model: str) -> Config:
    """Return the config that trains one member of a table.

    Args:
      data: a key of `RECIPES`.
      settings: comma-separated presets and settings, as after the colon of ``--config``.
      depth: layers; the first of the recipe's if None.
      **model: what is compared: ``norm="rms"``.
    """
    made = RECIPES[data]
    sections = {name: dict(section) for name, section in made.sections.items()}
    sections["model"] |= {"depth": depth or made.depths[0], **model}
    config = experiment(settings, **sections, **{"devices": 1, **made.extra})
    return from_dict(config.to_dict())


def train_table(
    data: str, menu: str, names: Sequence[str], settings: str, console: Console
) -> dict[str, Any]:
    """Train a classifier with each name of a menu, at each depth and seed of a recipe.

    Args:
      data: a key of `RECIPES`.
      menu: a key of `MENUS`.
      names: what to train.
      settings: changes to the recipe.
      console: shows how far it is, and how long it will take.

    Returns:
      ``recipe``, the config but for what is compared; ``majority``, the accuracy of the majority
      class on the scored rows; ``seconds``; and ``rows``, see `train_row`.
    """
    config = recipe(data, settings)
    dataset = prepare_data(config)
    steps = total_steps(
        config, dataset, length_buckets(dataset.train.lengths, config.train.buckets)
    )
    steps *= config.seeds
    cases = [(name, depth) for name in names for depth in RECIPES[data].depths]
    began, rows = time.perf_counter(), []
    with Progress(data, steps * len(cases), console=console) as progress:
        for index, (name, depth) in enumerate(cases):
            before = index * steps

            def stepped(step: int, examples: int, before: int = before) -> None:
                progress.update(before + step, examples)

            found = train_row(recipe(data, settings, depth, **{menu: name}), stepped)
            rows.append({"name": name, "depth": depth, **found})
            progress.update(before + steps)
            progress.print(f"{name:<28} {depth:>3} layers  {outcome(rows[-1])}")
    return {
        "data": data,
        "menu": menu,
        "recipe": asdict(config),
        "rows_scored": len(dataset.test),
        "majority": majority_accuracy(dataset),
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
    }


def train_row(
    config: Config, stepped: Callable[[int, int], None] = lambda step, examples: None
) -> dict[str, Any]:
    """Train and score one config, all its seeds.

    Args:
      config: what to train.
      stepped: told after each step how many were done, and how many examples that step saw.

    Returns:
      ``status``, ``"ok"``, ``"diverged"`` (of some seed) or ``"failed"``, with the reason in ``why``;
      ``accuracy`` and ``log_loss``, means over seeds, ``sd`` and ``least`` of the accuracy, None
      unless ok; ``step_ms``, the median time of a step, and ``seconds``, of everything.
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
    score: dict[str, float | None] = dict.fromkeys(("accuracy", "sd", "least", "log_loss"))
    with tempfile.TemporaryDirectory() as folder:
        try:
            quiet = Console(file=io.StringIO())
            report = run_experiment(config, Path(folder) / "run", quiet, parallel=Timed)
            spread = report["summary"]["accuracy"]
            score = {
                "accuracy": spread["mean"],
                "sd": spread["sd"],
                "least": spread["min"],
                "log_loss": report["log_loss"],
            }
            if not math.isfinite(report["log_loss"]):
                row = {"status": "diverged", "why": "the log loss is not finite"}
        except DivergedError as error:
            row = {"status": "diverged", "why": str(error)}
        except Exception as error:  # one that cannot run must not cost the table of the others
            row = {"status": "failed", "why": f"{type(error).__name__}: {error}"}
    later = times[1:]  # the first compiles
    return {
        **row,
        **score,
        "step_ms": float(np.median(later)) * 1e3 if later else None,
        "steps": len(times),
        "seconds": round(time.perf_counter() - began, 2),
    }


def outcome(row: Mapping[str, Any]) -> str:
    """Return what came of one row, for people."""
    if row["status"] != "ok":
        return f"{row['status']}: {row['why'].splitlines()[0] if row['why'] else ''}"
    spread = f" (sd {100 * row['sd']:.2f})" if row["sd"] else ""
    return f"{100 * row['accuracy']:.2f} %{spread}  {row['step_ms']:.2f} ms a step"
