"""Train a small classifier with every norm, arrangement or stream under one recipe: one table."""

import io
import json
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
from resnorm_jax.errors import DivergedError, UserError
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.schemes import STREAMS
from resnorm_jax.training.devices import DataParallel
from resnorm_jax.training.experiment import run_experiment
from resnorm_jax.training.run_data import prepare_data, total_steps

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
            "optimizer": {"learning_rate": 3e-3, "warmup": 0.1, "weight_decay": 0.05},
            "train": {"batch_size": 45, "epochs": 12, "buckets": 1, **ALIKE, "scale": True},
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
    data: str,
    menu: str,
    names: Sequence[str],
    settings: str,
    console: Console,
    known: Sequence[Mapping[str, Any]] = (),
    save: Callable[[dict[str, Any]], None] = lambda table: None,
) -> dict[str, Any]:
    """Train a classifier with each name of a menu, at each depth and seed of a recipe.

    Args:
      data: a key of `RECIPES`.
      menu: a key of `MENUS`.
      names: what to train.
      settings: changes to the recipe.
      console: shows how far it is, and how long it will take.
      known: rows of an earlier table of the same recipe, not trained again.
      save: given the table after each row, so that an interrupted run can go on.

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
    cases = [(name, depth) for depth in RECIPES[data].depths for name in names]
    done = {(row["name"], row["depth"]): dict(row) for row in known}
    table: dict[str, Any] = {
        "data": data,
        "menu": menu,
        "recipe": asdict(config),
        "rows_scored": len(dataset.test),
        "majority": majority_accuracy(dataset),
        "rows": [],
    }
    with Progress(data, steps * len(cases), console=console) as progress:
        for index, (name, depth) in enumerate(cases):
            before = index * steps

            def stepped(step: int, examples: int, before: int = before) -> None:
                progress.update(before + step, examples)

            row = done.get((name, depth))
            if row is None:
                found = train_row(recipe(data, settings, depth, **{menu: name}), stepped)
                row = {"name": name, "depth": depth, **found}
            table["rows"].append(row)
            save(table)
            progress.update(before + steps)
            progress.print(f"{name:<28} {depth:>3} layers  {outcome(row)}")
    return {**table, "seconds": round(sum(row["seconds"] for row in table["rows"]), 1)}


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


def earlier_rows(path: Path, data: str, menu: str, settings: str) -> list[dict[str, Any]]:
    """Return the rows of a results file, if it is of the same menu and recipe; else none.

    Raises:
      UserError: for a file that holds something else: it is not overwritten.
    """
    if not path.exists():
        return []
    try:
        table = json.loads(path.read_text(encoding="utf-8"))[data]
        same = table["menu"] == menu and table["recipe"] == asdict(recipe(data, settings))
        rows = list(table["rows"])
    except (ValueError, KeyError, TypeError):
        same, rows = False, []
    if not same:
        raise UserError(f"--output: {path} holds other results; name another file, or remove it")
    return rows


def outcome(row: Mapping[str, Any]) -> str:
    """Return what came of one row, for people."""
    if row["status"] != "ok":
        return f"{row['status']}: {row['why'].splitlines()[0] if row['why'] else ''}"
    spread = f" (sd {100 * row['sd']:.2f})" if row["sd"] else ""
    return f"{100 * row['accuracy']:.2f} %{spread}  {row['step_ms']:.2f} ms a step"
