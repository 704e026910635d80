"""What data a run sees: its rows, how many updates they make, and what they say of themselves."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.config import Config
from resnorm_jax.data import (
    Dataset,
    Examples,
    TrainBatches,
    length_buckets,
    load_dataset,
    majority_accuracy,
    scale_channels,
    split_validation,
)
from resnorm_jax.data.buckets import epoch_positions, quantile_buckets
from resnorm_jax.data.preprocess import check_values
from resnorm_jax.data.row_arrays import parts_of
from resnorm_jax.data.splits import held_labels
from resnorm_jax.data.tokenizer_files import FILE
from resnorm_jax.errors import UserError
from resnorm_jax.reporting import many_labels
from resnorm_jax.sizes import STEPS
from resnorm_jax.training.identity import FORMER, Identity

# Positions that two cores train on (width 128, 3 layers) while the programs of one length are compiled:
# 12,000 a second, for the 10 seconds that a length adds to a first run.
PROGRAM = 100_000


def prepare_data(config: Config) -> Dataset:
    """Return the data as they are trained on: `read_data`, then `scaled`; each row has one label."""
    dataset = read_data(config)
    check_one_label(dataset, "resnorm lab and bench")
    return scaled(dataset, config)


def scaled(dataset: Dataset, config: Config) -> Dataset:
    """Scale channels by the training rows, if the config says so.

    Raises:
      UserError: a value that float32 cannot square, with its file and channel.
    """
    return scale_channels(dataset) if config.train.scale else check_values(dataset)


def read_data(config: Config) -> Dataset:
    """Load the data, and hold out validation rows."""
    options = dict(config.data)
    return held_out(load_dataset(options.pop("source"), options), config)


def with_kept_tokenizer(config: Config, meta: Mapping[str, Any]) -> Config:
    """Return the config with the tokenizer's file that a run keeps, in place of how it was made.

    Args:
      config: of the run.
      meta: of the run, with its ``directory``.
    """
    if meta["encoding"].get("tokenizer") != FILE:
        return config
    return replace(config, data={**config.data, "tokenizer": str(Path(meta["directory"]) / FILE)})


def read_again(config: Config, stored: Identity | None, workdir: Path) -> Dataset:
    """`read_data`, of a run that has begun, by the tokenizer's file that it keeps if it has one."""
    if stored is None:
        return read_data(config)
    dataset = read_data(with_kept_tokenizer(config, {**stored.data, "directory": str(workdir)}))
    return dataset.replace(source=stored.data["source"])


def held_out(dataset: Dataset, config: Config) -> Dataset:
    """Hold out validation rows, if the config says so and the data have none."""
    if config.train.validation and dataset.valid is None:
        dataset = split_validation(dataset, config.train.validation, config.seed)
    asking = {
        "select": ("best",), "score": ("validation",), "threshold": tuple(many_labels.THRESHOLDS),
        "patience": (config.train.patience or "none",),
    }  # fmt: skip
    for field, values in asking.items():
        if dataset.valid is not None or getattr(config.train, field) not in values:
            continue
        raise UserError(
            f"config.train.{field}: {getattr(config.train, field)!r} needs validation rows; "
            "set train.validation=0.2"
        )
    return dataset


def scored_rows(dataset: Dataset, split: str) -> Examples:
    """Return the rows that ``config.train.score`` names: ``"test"`` or ``"valid"``."""
    rows = dataset.test if split == "test" else dataset.valid
    assert rows is not None  # as `prepare_data` made sure
    return rows


def padded_lengths(
    config: Config, dataset: Dataset, stored: Identity | None = None
) -> tuple[int, ...]:
    """Return the padded lengths of a run's batches: its own, or those that cost least.

    Args:
      config: ``train.buckets`` is the most of them.
      dataset: whose training rows they hold.
      stored: what the run is if it has begun: it keeps its lengths, hence its batches.
    """
    train, lengths = config.train, dataset.train.lengths
    if stored is None:
        steps = -(-len(lengths) // train.batch_size)
        epochs = train.epochs if train.steps is None else train.steps / steps
        return length_buckets(lengths, train.buckets, train.batch_size, PROGRAM / epochs)
    count = stored.config["train"].get("buckets", FORMER["train.buckets"])
    return stored.edges or quantile_buckets(lengths, count)


def padding(dataset: Dataset, edges: tuple[int, ...], batch_size: int) -> dict[str, Any] | None:
    """Return the padded lengths, and the share of an epoch's positions that is padding.

    Positions of rows that only fill a batch count as padding. None for images, which have one size.
    """
    lengths = dataset.train.lengths
    if dataset.kind == "images":
        return None
    positions = epoch_positions(lengths, np.array(edges), batch_size)
    share = 1 - int(lengths.sum(dtype=np.int64)) / positions
    return {"lengths": list(edges), "share": round(share, 4)}


def total_steps(config: Config, dataset: Dataset, buckets: tuple[int, ...]) -> int:
    """Return the number of updates: ``train.steps``, or epochs times the batches of one.

    Raises:
      UserError: if the epochs are more updates than a run counts.
    """
    if config.train.steps is not None:
        return config.train.steps
    batches = TrainBatches(dataset.train, config.train.batch_size, buckets, config.seed)
    steps = config.train.epochs * batches.steps_per_epoch
    if not STEPS.holds(steps):
        raise UserError(
            f"config.train.epochs: {config.train.epochs} of {batches.steps_per_epoch} batches are "
            f"{steps} steps; give at most {STEPS.high // batches.steps_per_epoch} epochs"
        )
    return steps


def labels_line(dataset: Dataset) -> tuple[str, ...]:
    """Return a line on the labels where a row has any number of them; warn of one-hot classes."""
    if dataset.task == "single_label":
        return ()
    y, rows = dataset.train.y, len(dataset.train)
    some = sum(int((part > 0).any(axis=1).sum()) for part in parts_of(y))
    count = int(held_labels(y).sum())
    empty = 100 * (rows - some) / rows
    line = f"labels: {count / rows:.2f} a training row; {empty:.1f} % of rows have none"
    return (line, ONE_EACH) if count == some == rows else (line,)


# What a one-hot vector a row looks like: labels are then said apart, and none or several may be.
ONE_EACH = (
    "labels: each training row has exactly one; if no row ever has more, give its class instead, so "
    "that one is chosen (y.argmax(1) in an .npz file; text without labels=many)"
)


def data_line(dataset: Dataset, padded: Mapping[str, Any] | None = None) -> str:
    """Return one line on the data: rows, lengths, classes, and what `padding` gives."""
    parts = [f"{len(dataset.train)} training"]
    if dataset.valid is not None:
        parts.append(f"{len(dataset.valid)} validation")
    parts.append(f"{len(dataset.test)} test")
    lengths = dataset.train.lengths
    span = f"length {lengths.min()}" + (
        f" to {lengths.max()}" if lengths.max() > lengths.min() else ""
    )
    line = f"{dataset.name}: {', '.join(parts)} rows, {span}, {len(dataset.classes)} classes"
    if padded is None or lengths.min() == lengths.max():
        return line
    edges = ", ".join(map(str, padded["lengths"]))
    return f"{line}; {100 * padded['share']:.1f} % of positions are padding, to {edges}"


def check_one_label(dataset: Dataset, command: str) -> None:
    """Raise UserError where a row has any number of labels, for what wants one."""
    if dataset.task != "single_label":
        raise UserError(
            f"data: rows of {dataset.name!r} have any number of labels, which {command} do not read"
        )


def baselines(dataset: Dataset, split: str) -> dict[str, Any]:
    """Return the accuracy of the trivial rules on the scored rows.

    Where a row has any number of labels it is every score of a rule: of always giving each label its
    share of the training rows as its probability, hence saying those that most rows have.
    """
    if dataset.task == "multi_label":
        rows = scored_rows(dataset, split)
        share = held_labels(dataset.train.y) / len(dataset.train)
        with np.errstate(divide="ignore"):
            log_probs = np.broadcast_to(np.log(share), rows.y.shape)
        found = many_labels.score(log_probs, rows.y, dataset.classes)
        return {"majority of each label": {n: found[n] for n in many_labels.HEADLINES}}
    if split == "test":
        return {"majority class": majority_accuracy(dataset), **dataset.rules}
    return {"majority class": majority_accuracy(replace(dataset, test=scored_rows(dataset, split)))}
