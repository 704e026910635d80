"""Arrays from ``.npz`` files: features, tokens or images with labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnorm_jax.data.checks import check_file, check_fraction, class_index
from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.data.npz_format import NpzFile, read_npz
from resnorm_jax.data.splits import stratified_split
from resnorm_jax.data.text import class_names
from resnorm_jax.errors import UserError


@dataclass(frozen=True)
class ArraysOptions:
    """Options of the ``arrays`` source.

    Attributes:
      train: ``.npz`` with ``x`` (float ``[N, L, C]`` or ``[N, L]``, integer tokens ``[N, L]``,
        float or uint8 images ``[N, H, W, C]``), ``y`` (integers or strings) and optional
        ``lengths``.
      test: the same, to score on; "" splits the training file.
      test_fraction: of the rows, stratified, where there is no test file.
      seed: of that split.
    """

    train: str = ""
    test: str = ""
    test_fraction: float = 0.2
    seed: int = 0


def _examples(read: NpzFile, classes: tuple[str, ...]) -> Examples:
    y = class_index(read.labels or [], classes, read.where, "the training rows")
    return Examples(read.x, read.lengths, y)


def _check_alike(train: NpzFile, test: NpzFile, vocabulary: int) -> None:
    if train.kind != test.kind:
        raise UserError(f"{test.path}: holds {test.kind}, {train.path} holds {train.kind}")
    fixed = slice(1, None) if train.kind == "images" else slice(2, None)
    if train.x.shape[fixed] != test.x.shape[fixed]:
        raise UserError(
            f"{test.path}: rows of shape {test.x.shape[1:]}, {train.path} has "
            f"{train.x.shape[1:]}; channels (and image sizes) must match"
        )
    if train.kind == "tokens" and test.x.max() >= vocabulary:
        row, position = np.argwhere(test.x >= vocabulary)[0]
        raise UserError(
            f"{test.path}: row {row} has token {test.x[row, position]}, beyond the training "
            f"rows' largest, {vocabulary - 1}; use the same ids in both files"
        )


def load_arrays(options: ArraysOptions) -> Dataset:
    """Load a file, or a pair of files; classes and vocabulary are those of the training rows.

    Raises:
      UserError: see ``read_npz``; also for labels, tokens or channels unknown to the training file.
    """
    if not options.train:
        raise UserError("data.train: not given; give an .npz file with 'x' and 'y'")
    check_fraction("data.test_fraction", options.test_fraction)
    read = read_npz(check_file("data.train", options.train), ("x", "y"))
    classes = class_names(read.labels or [])
    size = int(read.x.max()) + 1 if read.kind == "tokens" else 0
    every = _examples(read, classes)
    if options.test:
        other = read_npz(check_file("data.test", options.test), ("x", "y"))
        _check_alike(read, other, size)
        train, test = every, _examples(other, classes)
    else:
        kept, held = stratified_split(
            every.y, options.test_fraction, options.seed, "data.test_fraction"
        )
        train, test = every.take(kept), every.take(held)
    vocabulary = ("<pad>", *(str(i) for i in range(1, size))) if size else ()
    name = Path(options.train).stem
    return Dataset(name, read.kind, train, test, classes, vocabulary=vocabulary)
