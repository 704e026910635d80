"""Time series from UEA/UCR ``.ts`` files: those inside the aeon package, or a local pair.

The bundled files are read where aeon was installed; nothing is ever downloaded, and aeon itself is
not imported. The sets and their splits are those of the UEA/UCR archive (Bagnall et al. 2018,
arXiv:1811.00075; Dau et al. 2018, arXiv:1810.07758).
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from resnorm_jax.data.checks import check_file, missing_extra
from resnorm_jax.data.dataset import Dataset
from resnorm_jax.data.names import data_name
from resnorm_jax.data.rows import Rows
from resnorm_jax.data.source import Source
from resnorm_jax.data.ts_format import check_labelled, read_lines, read_ts_file
from resnorm_jax.data.ts_header import Header, check_same, read_header
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.schema import option


@dataclass(frozen=True)
class SeriesOptions:
    """Options of the ``series`` source."""

    name: str = option("JapaneseVowels", "a set bundled with aeon; not used when files are given")
    train: str = option("", "local .ts file to learn from; give test too")
    test: str = option("", "local .ts file to score on")


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
        return bool(read_header(pair[0], read_lines(pair[0])).classes())
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


def _read_labelled(path: Path) -> tuple[Header, Rows]:
    header, rows = read_ts_file(path)
    check_labelled(header)
    return header, rows


def load_series(options: SeriesOptions) -> Dataset:
    """Load a bundled set or a local pair of ``.ts`` files.

    Classes are those of the training rows, in the order of the training file's header.

    Raises:
      UserError: see ``read_ts``; also for an unknown name, a missing file, different channel
        counts, headers that contradict each other, or a test label that does not occur in training.
    """
    local = bool(options.train or options.test)
    paths = _local_pair(options) if local else _bundled_pair(options.name)
    (header, train), (other, test) = (_read_labelled(path) for path in paths)
    check_same(header, other)
    counts = [rows.values[0].shape[1] for rows in (train, test)]
    if counts[0] != counts[1]:
        raise UserError(
            f"{test.where[0]}: {counts[1]} channels, but {paths[0]} has {counts[0]}; "
            "both files must have the same channels"
        )
    classes = tuple(name for name in train.declared if name in set(train.labels))
    known_from = f"the training file {paths[0]}"
    return Dataset(
        name=data_name(paths[0]) if local else options.name,
        kind="features",
        train=train.examples("features", classes, known_from),
        test=test.examples("features", classes, known_from),
        classes=classes,
    )


SOURCE = Source(
    "series",
    "time series: UEA/UCR sets bundled with aeon, or local .ts files",
    SeriesOptions,
    load_series,
    "series",
    "Bagnall et al. 2018, arXiv:1811.00075; Dau et al. 2018, arXiv:1810.07758; "
    "files as bundled with aeon (github.com/aeon-toolkit/aeon)",
)
