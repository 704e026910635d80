"""Fine-tuning a BERT beside ``transformers`` in torch: the same weights, rows, order and optimizer."""

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnorm_jax.build import build_model
from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, TrainBatches
from resnorm_jax.data.preprocess import describe
from resnorm_jax.interop.pretrained import save_pretrained
from resnorm_jax.training.devices import DataParallel
from resnorm_jax.training.initial import first_variables
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.recipe import step_options
from resnorm_jax.training.run_data import padded_lengths, prepare_data
from resnorm_jax.training.step import create_state

Step = Callable[[Mapping[str, Any]], float]  # takes a batch, does an update, returns the loss
# Dropout draws other numbers in torch.
SETTINGS = {
    "model.dropout": 0.0, "model.attention_dropout": 0.0, "train.log_every": 1, "devices": 1,
}  # fmt: skip
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def bare(checkpoint: Path, folder: Path) -> Path:
    """Copy a BERT without what sentence-transformers says of its pooling, and return the copy.

    Both sides then read the first token through the pooler, as ``transformers`` does.
    """
    folder.mkdir()
    for name in FILES:
        if (checkpoint / name).is_file():
            shutil.copy(checkpoint / name, folder / name)
    return folder


class Sides:
    """A fine-tuning that is done twice.

    Args:
      config: of the run, with `SETTINGS`, AdamW and no EMA.
      steps: of its schedule.
    """

    def __init__(self, config: Config, steps: int) -> None:
        self.config, self.data = config, prepare_data(config)
        self.buckets = padded_lengths(config, self.data)
        self.batches = TrainBatches(
            self.data.train, config.train.batch_size, self.buckets, config.seed
        )
        model = build_model(config, describe(self.data))
        variables = first_variables(config, model, self.data, self.buckets, config.seed)
        # The step donates what it is given, and torch starts from it too.
        self.variables = jax.tree.map(np.array, dict(variables))
        optimizer, self.schedule = make_optimizer(config.optimizer, steps)
        self.options = step_options(model, config.optimizer, config.train, optimizer, None)
        self.first = create_state(variables, optimizer, config.seed, None, self.options.names)

    def ours(self) -> Step:
        """Return this library's update."""
        parallel = DataParallel(self.options, jax.local_devices()[:1])
        state = parallel.replicate(self.first)

        def step(batch: Mapping[str, Any]) -> float:
            nonlocal state
            state, sums = parallel.train(state, batch)
            return float(sums["loss"]) / float(sums["count"])

        return step

    def theirs(self) -> Step:
        """Return the update of torch: a usual loop around a model of ``transformers``."""
        import torch

        torch.manual_seed(0)
        model = _torch_model(self.config, self.data, self.variables)
        decay, clip = self.config.optimizer.weight_decay, self.config.optimizer.clip
        assert clip is not None
        names = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        matrices: list[Any] = []
        others: list[Any] = []
        for name, parameter in model.named_parameters():
            (matrices if name.removesuffix(".weight") in names else others).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, eps=1e-8)
        done = 0

        def step(batch: Mapping[str, Any]) -> float:
            nonlocal done
            logits = model(
                input_ids=torch.tensor(batch["x"], dtype=torch.long),
                attention_mask=torch.tensor(batch["mask"]),
            ).logits
            each = torch.nn.functional.cross_entropy(
                logits, torch.tensor(batch["y"], dtype=torch.long), reduction="none"
            )
            weight = torch.tensor(batch["weight"])  # some rows only fill a batch
            loss = (each * weight).sum() / weight.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            for group in optimizer.param_groups:
                group["lr"] = float(self.schedule(done))
            optimizer.step()
            done += 1
            return loss.item()

        return step


def beside(sides: Sides, steps: int) -> dict[str, Any]:
    """Do the first updates in turn; return losses and speeds.

    An update whose padded length is met for the first time is not timed: it is compiled here, and
    memory is found there.

    Returns:
      ``losses``, ``theirs`` of each update; ``examples_per_second`` and ``theirs_per_second``, rows of
      the timed updates over their seconds; ``timed``, how many those are.
    """
    both = (sides.ours(), sides.theirs())
    losses: tuple[list[float], list[float]] = ([], [])
    spent, known, rows, timed = [0.0, 0.0], set[int](), 0, 0
    for number in range(steps):
        batch = sides.batches.batch_at(number)
        counts = (length := batch["x"].shape[1]) in known
        known.add(length)
        for side, step in enumerate(both):
            began = time.monotonic()
            losses[side].append(step(batch))
            spent[side] += counts * (time.monotonic() - began)
        rows, timed = rows + counts * int(batch["weight"].sum()), timed + counts
    speeds = [round(rows / seconds, 2) if seconds else None for seconds in spent]
    return {
        "losses": losses[0],
        "theirs": losses[1],
        "examples_per_second": speeds[0],
        "theirs_per_second": speeds[1],
        "timed": timed,
    }


def _torch_model(config: Config, data: Dataset, variables: Mapping[str, Any]) -> Any:
    import torch
    import transformers

    with tempfile.TemporaryDirectory(prefix="resnorm_jax-") as folder:
        place = Path(folder) / "start"
        save_pretrained(place, config.model, variables, data.classes, family="bert")
        auto = transformers.AutoModelForSequenceClassification
        model = auto.from_pretrained(place).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model
