"""Pure functions from a data set to a data set: scaling, a validation split, metadata."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.data.row_arrays import counts, parts_of
from resnorm_jax.data.splits import stratified_split
from resnorm_jax.errors import UserError
from resnorm_jax.schema import FRACTION

LARGEST = 1e18  # of a value that a model is given; its square is a float32
MOST_TOKENS = 512  # of a row of features; attention takes their square in time
Scaling = tuple[np.ndarray, np.ndarray]


def valid_positions(examples: Examples) -> np.ndarray:
    """Return ``[N, L]`` bool, True inside each row's length."""
    return np.arange(examples.x.shape[1]) < examples.lengths[:, None]


def channel_scaling(examples: Examples) -> Scaling:
    """Return mean and standard deviation ``[C]`` float64 over valid positions.

    A channel that is constant has scale 1.
    """
    values = examples.x[valid_positions(examples)].astype(np.float64)
    constant = values.max(axis=0) == values.min(axis=0)
    scale = np.where(constant, 1.0, values.std(axis=0))
    return values.mean(axis=0), np.where(scale > 0, scale, 1.0)


def apply_scaling(examples: Examples, scaling: Scaling) -> Examples:
    """Return the rows with ``(x - mean) / scale`` in valid positions and zeros in padding."""
    mean, scale = scaling
    inside = valid_positions(examples)[..., None]
    with np.errstate(over="ignore"):  # `check_range` tells of what is too large
        x = np.where(inside, (examples.x - mean) / scale, 0.0).astype(np.float32)
    return Examples(x, examples.lengths, examples.y)


def check_range(
    examples: Examples, place: Callable[[int], str], scaling: Scaling | None = None
) -> None:
    """Check that the model can square every value in float32.

    Args:
      examples: features or images, as the model is given them.
      place: from the index of a row to where it comes from, for the message.
      scaling: that has been applied, for the message.

    Raises:
      UserError: with the place, the channel (from 1) and the value, for the first value that is no
        finite number or is over 1e18 in size.
    """
    axes = tuple(range(1, examples.x.ndim))
    within = (examples.x.max(axis=axes) <= LARGEST) & (examples.x.min(axis=axes) >= -LARGEST)
    if within.all():
        return
    row = int(np.argmin(within))
    at = tuple(np.argwhere(~(np.abs(examples.x[row]) <= LARGEST))[0])
    value, how, fix = float(examples.x[row][at]), "", "set train.scale=true, or mend the value"
    if scaling is not None:
        mean, scale = (float(part[at[-1]]) for part in scaling)
        how = f" after scaling by the training rows' mean {mean:.4g} and deviation {scale:.4g}"
        fix = "mend the value, or drop a channel that is as good as constant in training"
    raise UserError(
        f"{place(row)}: channel {at[-1] + 1} holds {value:.6g}{how}, over the limit of "
        f"{LARGEST:g} that float32 can square; {fix}"
    )


def check_values(dataset: Dataset) -> Dataset:
    """Return the data set; check the `check_range` of every split of features or images.

    Raises:
      UserError: with the source's file and the split.
    """
    options = dataset.source.get("options", {})
    files = options if isinstance(options, Mapping) else {}
    for name in ("train", "valid", "test"):
        split = getattr(dataset, name)
        if dataset.kind != "tokens" and split is not None and len(split):
            file = (name == "test" and files.get("test")) or files.get("train")
            told = file if isinstance(file, str) and file else dataset.name
            check_range(split, lambda row, t=told, n=name: f"{t}: {n} rows", dataset.scaling)  # type: ignore[misc]
    return dataset


def scale_channels(dataset: Dataset) -> Dataset:
    """Standardize each channel by the valid positions of the training rows.

    Args:
      dataset: of kind features; any other kind is returned as it is.

    Returns:
      The data set with every split scaled and ``scaling`` set.

    Raises:
      ValueError: the data set is scaled already.
      UserError: see `check_values`.
    """
    if dataset.kind != "features":
        return dataset
    if dataset.scaling is not None:
        raise ValueError("the data set is scaled already")
    scaling = channel_scaling(dataset.train)
    scaled = dataset.replace(
        train=apply_scaling(dataset.train, scaling),
        valid=None if dataset.valid is None else apply_scaling(dataset.valid, scaling),
        test=apply_scaling(dataset.test, scaling),
        scaling=scaling,
    )
    return check_values(scaled)


def split_validation(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Hold out training rows for validation, class by class, where the source has no such split.

    Args:
      dataset: returned as it is when ``valid`` is set.
      fraction: of the training rows, between 0 and 1.
      seed: of the choice.

    Returns:
      The data set with ``train`` and ``valid``; every class keeps at least one training row.

    Raises:
      UserError: the fraction is out of range, or holds out nothing.
    """
    if dataset.valid is not None:
        return dataset
    FRACTION.check("config.train.validation", fraction)
    kept, held = stratified_split(dataset.train.y, fraction, seed, "config.train.validation")
    return dataset.replace(train=dataset.train.take(kept), valid=dataset.train.take(held))


def majority_accuracy(dataset: Dataset) -> float:
    """Return the test accuracy of always answering the most frequent training class."""
    majority = counts(dataset.train.y).argmax()
    hits = sum(int(np.count_nonzero(part == majority)) for part in parts_of(dataset.test.y))
    return float(np.divide(hits, len(dataset.test)))


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what is needed to prepare new inputs, as JSON-able values.

    Returns:
      ``name``, ``kind``, ``classes``, ``vocabulary``, ``scaling`` (``mean`` and ``scale`` lists,
      or None), ``shape`` (``[C]`` for features, ``[H, W, C]`` for images, else ``[]``),
      ``max_length``, ``encoding``, ``source``, ``task``, and ``stride``: positions from one token to
      the next, unless a config says otherwise, so that the longest row of features has at most
      `MOST_TOKENS`; 1 for tokens and images. ``read_inputs`` takes it.
    """
    first = {"features": 2, "images": 1, "tokens": 2}[dataset.kind]
    scaling = dataset.scaling
    return {
        "name": dataset.name,
        "kind": dataset.kind,
        "classes": list(dataset.classes),
        "vocabulary": list(dataset.vocabulary),
        "scaling": scaling and {"mean": scaling[0].tolist(), "scale": scaling[1].tolist()},
        "shape": list(dataset.train.x.shape[first:]),
        "max_length": dataset.max_length,
        "encoding": dict(dataset.encoding),
        "source": dict(dataset.source),
        "task": dataset.task,
        "stride": -(-dataset.max_length // MOST_TOKENS) if dataset.kind == "features" else 1,
    }


def saved_scaling(meta: Mapping[str, Any]) -> Scaling | None:
    """Return the scaling saved by ``describe``, or None."""
    saved = meta["scaling"]
    return saved and (np.array(saved["mean"]), np.array(saved["scale"]))
