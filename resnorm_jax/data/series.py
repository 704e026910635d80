"""Time series from UEA/UCR ``.ts`` files: those inside the aeon package, or a local pair.

The bundled files are read where aeon was installed; nothing is ever downloaded, and aeon itself is
not imported. The sets and their splits are those of the UEA/UCR archive (Bagnall et al. 2018,
arXiv:1811.00075; Dau et al. 2018, arXiv:1810.07758).
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from resnorm_jax.data.checks import check_file, class_index, missing_extra
from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.data.ts_format import TsFile, declared_classes, read_header, read_ts
from resnorm_jax.errors import UserError, nearest


@dataclass(frozen=True)
class SeriesOptions:
    """Options of the ``series`` source.

    Attributes:
      name: a classification set bundled with aeon (for titles only, when files are given).
      train: local ``.ts`` file to learn from; give ``test`` too.
      test: local ``.ts`` file to score on.
    """

    name: str = "JapaneseVowels"
    train: str = ""
    test: str = ""


def bundled_folder() -> Path:
    """Return the folder of the data inside the installed aeon package, without importing it.

    Raises:
      UserError: aeon is not installed.
    """
    found = importlib.util.find_spec("aeon")
    if found is None or found.origin is None:
        raise missing_extra("aeon", "series")
    return Path(found.origin).parent / "datasets" / "data"


def _is_classification(folder: Path) -> bool:
    pair = [folder / f"{folder.name}_{split}.ts" for split in ("TRAIN", "TEST")]
    if not all(path.is_file() for path in pair):
        return False
    try:
        lines = pair[0].read_text(encoding="utf-8", errors="replace").split("\n")
        return bool(declared_classes(pair[0], read_header(pair[0], lines)[0]))
    except UserError:
        return False


def bundled_names() -> list[str]:
    """Return the names of the classification sets inside the installed aeon package."""
    folders = sorted(path for path in bundled_folder().glob("*") if path.is_dir())
    return [folder.name for folder in folders if _is_classification(folder)]


def _bundled_pair(name: str) -> tuple[Path, Path]:
    names = bundled_names()
    if name not in names:
        raise UserError(
            f"data.name: {name!r} is not bundled with aeon (bundled: {', '.join(names)}); "
            f"{nearest(name, names)} Or give local files: data.train and data.test"
        )
    folder = bundled_folder() / name
    return folder / f"{name}_TRAIN.ts", folder / f"{name}_TEST.ts"


def _local_pair(options: SeriesOptions) -> tuple[Path, Path]:
    for field, other in (("train", "test"), ("test", "train")):
        if not getattr(options, field):
            raise UserError(
                f"data.{field}: not given, but data.{other} is; give both .ts files or neither"
            )
    return check_file("data.train", options.train), check_file("data.test", options.test)


def _examples(read: TsFile, classes: tuple[str, ...], train: str) -> Examples:
    x, lengths = read.padded()
    labels = read.labels or []
    y = class_index(labels, classes, read.where, f"the training file {train}")
    return Examples(x, lengths, y)


def _with_labels(path: Path) -> TsFile:
    read = read_ts(path)
    if read.labels is None:
        raise UserError(
            f"{path}: no class labels in the header; add a line '@classLabel true A B ...' and end "
            "each case with ':label'"
        )
    return read


def load_series(options: SeriesOptions) -> Dataset:
    """Load a bundled set or a local pair of ``.ts`` files.

    Classes are those of the training rows, in the order of the training file's header.

    Raises:
      UserError: see ``read_ts``; also for an unknown name, a missing file, different channel
        counts, or a test label that does not occur in training.
    """
    local = bool(options.train or options.test)
    paths = _local_pair(options) if local else _bundled_pair(options.name)
    train, test = _with_labels(paths[0]), _with_labels(paths[1])
    counts = [read.series[0].shape[1] for read in (train, test)]
    if counts[0] != counts[1]:
        raise UserError(
            f"{test.where[0]}: {counts[1]} channels, but {paths[0]} has {counts[0]}; "
            "both files must have the same channels"
        )
    seen = set(train.labels or [])
    classes = tuple(name for name in train.declared if name in seen)
    return Dataset(
        name=paths[0].stem.removesuffix("_TRAIN") if local else options.name,
        kind="features",
        train=_examples(train, classes, str(paths[0])),
        test=_examples(test, classes, str(paths[0])),
        classes=classes,
    )
