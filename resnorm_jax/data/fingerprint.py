"""What a data set is by its content, so that a run can tell its own data from other data."""

import hashlib
import json
from typing import Any

import numpy as np

from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.data.ragged import Ragged

ARRAYS = ("x", "lengths", "y")
ROWS = 4096  # read at once where an array is not in memory


def _little_endian(array: np.ndarray) -> np.ndarray:
    """Return the array in C order and little endian; it is copied only where it is not so."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def _split(examples: Examples | None) -> dict[str, Any] | None:
    if examples is None:
        return None
    digest = hashlib.sha256()
    for name in ARRAYS:
        array = getattr(examples, name)
        step = ROWS if isinstance(array, Ragged) else max(len(array), 1)
        kind = array.dtype.newbyteorder("<").str
        digest.update(f"{name} {kind} {array.shape}\n".encode())
        for start in range(0, len(array), step):
            part = _little_endian(array[start : start + step])
            digest.update(part.reshape(-1).view(np.uint8).data)
    x = examples.x
    return {"shape": list(x.shape), "dtype": x.dtype.name, "sha256": digest.hexdigest()}


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Return what identifies a data set: equal for equal content, whatever file it came from.

    Args:
      dataset: as it is trained on: split, and scaled where the run scales.

    Returns:
      JSON-able, and equal after a round trip through JSON: ``kind``; ``classes``, a list in order;
      ``splits``, for each of ``train``, ``valid`` (None where there is none) and ``test`` the
      ``shape`` and ``dtype`` of ``x`` and the ``sha256`` of ``x``, ``lengths`` and ``y`` (their
      types, shapes and bytes in C order, little endian); ``vocabulary``, its ``size`` and
      ``sha256``; ``scaling``, the ``mean`` and ``scale`` of each channel, or None; and where a
      tokenizer has a file, ``tokenizer``, its ``sha256``.
    """
    words, scaling = list(dataset.vocabulary), dataset.scaling
    digest = dataset.encoding.get("sha256")
    return {
        "kind": dataset.kind,
        "classes": list(dataset.classes),
        "splits": {name: _split(getattr(dataset, name)) for name in ("train", "valid", "test")},
        "vocabulary": {
            "size": len(words),
            "sha256": hashlib.sha256(json.dumps(words).encode()).hexdigest(),
        },
        "scaling": scaling and {"mean": scaling[0].tolist(), "scale": scaling[1].tolist()},
        **({"tokenizer": digest} if digest else {}),
    }
