"""Pure functions from a data set to a data set: scaling, a validation split, metadata."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.data.splits import stratified_split
from resnorm_jax.schema import FRACTION

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
    x = np.where(inside, (examples.x - mean) / scale, 0.0).astype(np.float32)
    return Examples(x, examples.lengths, examples.y)


def scale_channels(dataset: Dataset) -> Dataset:
    """Standardize each channel by the valid positions of the training rows.

    Args:
      dataset: of kind features; any other kind is returned as it is.

    Returns:
      The data set with every split scaled and ``scaling`` set.

    Raises:
      ValueError: the data set is scaled already.
    """
    if dataset.kind != "features":
        return dataset
    if dataset.scaling is not None:
        raise ValueError("the data set is scaled already")
    scaling = channel_scaling(dataset.train)
    return dataset.replace(
        train=apply_scaling(dataset.train, scaling),
        valid=None if dataset.valid is None else apply_scaling(dataset.valid, scaling),
        test=apply_scaling(dataset.test, scaling),
        scaling=scaling,
    )


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
    majority = np.bincount(dataset.train.y).argmax()
    return float(np.mean(dataset.test.y == majority))


def describe(dataset: Dataset) -> dict[str, Any]:
    """Return what is needed to prepare new inputs, as JSON-able values.

    Returns:
      ``name``, ``kind``, ``classes``, ``vocabulary``, ``scaling`` (``mean`` and ``scale`` lists,
      or None), ``shape`` (``[C]`` for features, ``[H, W, C]`` for images, else ``[]``),
      ``max_length``, ``encoding`` and ``source``. ``read_inputs`` takes it.
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
    }


def saved_scaling(meta: Mapping[str, Any]) -> Scaling | None:
    """Return the scaling saved by ``describe``, or None."""
    saved = meta["scaling"]
    return saved and (np.array(saved["mean"]), np.array(saved["scale"]))
