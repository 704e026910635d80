"""A grid of runs that goes on where it was stopped."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, length_buckets
from resnorm_jax.errors import UserError
from resnorm_jax.lab.compare.cell import train_runs
from resnorm_jax.lab.compare.records import Record, label_entropy, run_record
from resnorm_jax.reporting.files import to_plain, write_json
from resnorm_jax.reporting.metrics import score
from resnorm_jax.reporting.progress import Progress
from resnorm_jax.training.run_data import scored_rows, total_steps

CLAIM, CELLS = "grid.json", "cells"


@dataclass(frozen=True)
class Grid:
    """What is trained: every arrangement at every depth, with every seed and learning rate.

    Attributes:
      config: of all runs; its arrangement, depth, seed and learning rate are replaced.
      arrangements: by name.
      depths: numbers of layers.
      seeds: of each run.
      rates: peak learning rates.
      steps: updates of each run.
    """

    config: Config
    arrangements: tuple[str, ...]
    depths: tuple[int, ...]
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    steps: int

    @property
    def cells(self) -> list[tuple[str, int]]:
        """Arrangement and depth of each compiled program, depth by depth."""
        return [(name, depth) for depth in self.depths for name in self.arrangements]

    @property
    def runs(self) -> int:
        """How many runs a cell has."""
        return len(self.seeds) * len(self.rates)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, as written to the grid's directory."""
        return to_plain(asdict(self))


def make_grid(
    config: Config,
    dataset: Dataset,
    arrangements: Sequence[str] = (),
    depths: Sequence[int] = (),
    rates: Sequence[float] = (),
    steps: int | None = None,
) -> Grid:
    """Return the grid of a config; what is not given is the config's own."""
    if steps is None:
        steps = total_steps(config, dataset, length_buckets(dataset.train.lengths, 1))
    return Grid(
        config,
        tuple(arrangements) or (config.model.arrangement,),
        tuple(depths) or (config.model.depth,),
        tuple(range(config.seed, config.seed + config.seeds)),
        tuple(rates) or (config.optimizer.learning_rate,),
        steps,
    )


def run_grid(grid: Grid, dataset: Dataset, folder: Path, console: Console) -> list[Record]:
    """Train what the folder does not hold yet; return the records of all runs.

    Args:
      grid: what is trained.
      dataset: of its config.
      folder: new, empty, or that of the same grid.
      console: shows how far it is, and how long it will take.

    Raises:
      UserError: if the folder holds something else. Nothing is written then.
    """
    open_grid(folder, grid)
    entropy, records = label_entropy(dataset.train.y), []
    with Progress("compare", grid.steps * len(grid.cells), console=console) as progress:
        for index, (name, depth) in enumerate(grid.cells):
            before = index * grid.steps
            path = folder / CELLS / f"{name}-{depth}.json"
            if not path.exists():

                def told(done: int, examples: int, before: int = before) -> None:
                    progress.update(before + done, examples)

                write_json(path, train_cell(grid, dataset, name, depth, entropy, told))
            cell = _read(path, "runs")
            records += cell["runs"]
            progress.update(before + grid.steps)
            progress.print(f"{name:<28} {depth:>4} layers  {outcome(cell['runs'])}")
    return records


def train_cell(
    grid: Grid, dataset: Dataset, name: str, depth: int, entropy: float, told: Any
) -> dict[str, Any]:
    """Train one arrangement at one depth; return its runs and what they cost."""
    model = replace(grid.config.model, arrangement=name, depth=depth)
    config = replace(grid.config, model=model)
    out = train_runs(config, dataset, grid.seeds, grid.rates, grid.steps, told)
    rows = scored_rows(dataset, config.train.score)
    runs = []
    for i, seed in enumerate(grid.seeds):
        for j, rate in enumerate(grid.rates):
            scores = score(out.log_probs[i, j], rows.y, dataset.classes)
            where = {"arrangement": name, "depth": depth, "seed": seed, "learning_rate": rate}
            runs.append({**where, **run_record(out.losses[i, j], scores, entropy)})
    cost = {"seconds": out.seconds, "compile_seconds": out.compile_seconds}
    return {"runs": runs, **cost}


def open_grid(folder: Path, grid: Grid) -> None:
    """Claim a folder for a grid, or check that it holds this very grid.

    Raises:
      UserError: if it holds something else, naming what differs. Nothing is written then.
    """
    path, wanted = folder / CLAIM, grid.to_dict()
    if path.exists():
        stored = _read(path)
        differ = sorted(key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key))
        if differ:
            raise UserError(
                f"--output: {folder} holds another grid: its {differ[0]} differ; name a new folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--output: {folder} holds other files; name a new folder")
    write_json(path, wanted)


def read_grid(folder: Path) -> tuple[dict[str, Any], list[Record]]:
    """Return what a folder's grid is, and the records of the runs that it holds.

    Raises:
      UserError: if there is no grid in the folder.
    """
    path = folder / CLAIM
    if not path.exists():
        raise UserError(f"{folder}: holds no grid; make one with resnorm lab compare")
    grid = _read(path, "arrangements", "depths")
    records: list[Record] = []
    for name in grid["arrangements"]:
        for depth in grid["depths"]:
            cell = folder / CELLS / f"{name}-{depth}.json"
            if cell.exists():
                records += _read(cell, "runs")["runs"]
    return grid, records


def _read(path: Path, *lists: str) -> dict[str, Any]:
    """Return what a file of a grid holds; raise UserError if it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(found[name], list) for name in lists) and isinstance(found, dict):
            return found
        why = f"it is {type(found).__name__}, without lists of {', '.join(lists)}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
    raise UserError(f"{path}: not as a grid writes it ({why}); name another folder")


def outcome(runs: Sequence[Record]) -> str:
    """Return what came of one cell's runs, for people."""
    parts = []
    for state in dict.fromkeys(run["status"] for run in runs):
        some = [run for run in runs if run["status"] == state]
        best = max(run["accuracy"] or 0.0 for run in some)
        loss = min(run["final_loss"] or float("inf") for run in some)
        parts.append(f"{len(some)} {state}: loss {loss:.3f}, accuracy {100 * best:.2f} %")
    return "; ".join(parts)
