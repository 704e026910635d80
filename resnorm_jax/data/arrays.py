"""Arrays from ``.npz`` files: features, tokens or images with labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from resnorm_jax.data.checks import check_file
from resnorm_jax.data.dataset import Dataset, Examples, Kind
from resnorm_jax.data.names import data_name
from resnorm_jax.data.npz_format import read_npz
from resnorm_jax.data.source import Source
from resnorm_jax.data.splits import stratified_split
from resnorm_jax.errors import UserError
from resnorm_jax.schema import FRACTION, SEED, option


@dataclass(frozen=True)
class ArraysOptions:
    """Options of the ``arrays`` source; `read_npz` says what a file holds."""

    train: str = option(
        "",
        ".npz file with x, y (integers or strings; or [rows, labels] of 0 and 1, where a row has any "
        "number of labels, and their names as classes) and optional lengths",
    )
    test: str = option("", "the same, to score on; empty splits the training file")
    test_fraction: float = option(0.2, "of the rows, stratified, without a test file", FRACTION)
    seed: int = option(0, "of that split", SEED)


def _check_alike(paths: tuple[Path, Path], kind: Kind, train: np.ndarray, test: np.ndarray) -> None:
    fixed = slice(1, None) if kind == "images" else slice(2, None)
    if train.shape[fixed] != test.shape[fixed]:
        raise UserError(
            f"{paths[1]}: rows of shape {test.shape[1:]}, {paths[0]} has "
            f"{train.shape[1:]}; channels (and image sizes) must match"
        )
    largest = train.max()
    if kind == "tokens" and test.max() > largest:
        row, position = np.argwhere(test > largest)[0]
        raise UserError(
            f"{paths[1]}: row {row + 1} has token {test[row, position]}, beyond the training "
            f"rows' largest, {largest}; use the same ids in both files"
        )


def _test_rows(
    paths: tuple[Path, Path], kind: Kind, train: np.ndarray, classes: tuple[str, ...], many: bool
) -> Examples:
    rows = read_npz(paths[1], labelled=True)
    if rows.kind != kind:
        raise UserError(f"{paths[1]}: holds {rows.kind}, {paths[0]} holds {kind}")
    if rows.many != many:
        raise UserError(
            f"{paths[1]}: 'y' has {1 + rows.many} axes, that of {paths[0]} has {1 + many}; match them"
        )
    x, lengths = rows.padded(kind)
    _check_alike(paths, kind, train, x)
    return Examples(x, lengths, rows.indices(classes, "the training rows"))


def load_arrays(options: ArraysOptions) -> Dataset:
    """Load a file, or a pair of files; classes and vocabulary are those of the training rows.

    Raises:
      UserError: see ``read_npz``; also for labels, tokens or channels unknown to the training file.
    """
    if not options.train:
        raise UserError("data.train: not given; give an .npz file with 'x' and 'y'")
    path = check_file("data.train", options.train)
    rows = read_npz(path, labelled=True)
    kind = rows.kind or "features"
    classes = rows.declared if rows.many else rows.class_names()
    train = rows.examples(kind, classes, "the training rows")
    size = int(train.x.max()) + 1 if kind == "tokens" else 0
    if options.test:
        paths = (path, check_file("data.test", options.test))
        test = _test_rows(paths, kind, train.x, classes, rows.many)
    else:
        kept, held = stratified_split(
            train.y, options.test_fraction, options.seed, "data.test_fraction"
        )
        train, test = train.take(kept), train.take(held)
    vocabulary = ("<pad>", *(str(i) for i in range(1, size))) if size else ()
    return Dataset(data_name(path), kind, train, test, classes, vocabulary=vocabulary)


SOURCE = Source(
    "arrays",
    "your .npz file: features, tokens or images with labels",
    ArraysOptions,
    load_arrays,
)
