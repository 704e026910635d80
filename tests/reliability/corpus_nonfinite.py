"""Runs whose numbers are not finite, and the fields of what is done about them."""

from functools import partial
from pathlib import Path

import numpy as np
from reliability.case import Case


def arrays(folder: Path, value: float, row: int) -> None:
    """Forty rows of three classes, one of which holds ``value``."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4, 2)).astype(np.float32), np.arange(40) % 3
    x[row] = value
    np.savez(folder / "a.npz", x=x, y=y)


def _train(name, says, *fields, status=2, files=None, source="train={d}/a.npz,data.test={d}/a.npz"):
    config = f"--config={{configs}}/arrays.py:{source}"
    return Case(name, ("train", config, *fields), says, files, status)


def _field(field, value, says):
    argument = f"--config.{field}={value}"
    return _train(f"{field}/{value}", says, argument, files=partial(arrays, value=0.0, row=0))


CASES = [
    _field("train.nonfinite", "ignore", r"config\.train\.nonfinite: .*'ignore'; choose one of"),
    _field("train.nonfinite", "skipp", r"config\.train\.nonfinite: .* did you mean 'skip'"),
    _field("train.nonfinite", "", r"config\.train\.nonfinite: no value"),
    _field("train.max_rollbacks", "-1", r"config\.train\.max_rollbacks: -1 must not be negative"),
    _field("train.max_rollbacks", "1.5", r"config\.train\.max_rollbacks: '1\.5' is not a whole"),
    _field("train.max_rollbacks", "7", r"max_rollbacks: 7 is not read .* set train\.nonfinite=roll"),
    _field("train.watchdog", "-1", r"config\.train\.watchdog: -1\.0 must not be negative"),
    _field("train.watchdog", "soon", r"config\.train\.watchdog: 'soon' is not a number"),
    _field("train.watchdog", "nan", r"config\.train\.watchdog: nan"),
    _field("train.watchdogs", "1", r"config\.train\.watchdogs: unknown field; did you mean"),
    _train(
        "data/1e38 unscaled",
        r"a\.npz: train rows: channel 1 holds 1e\+38, over the limit .* set train\.scale=true",
        "--config.train.scale=false",
        "--config.train.batch_size=40",
        files=partial(arrays, value=1e38, row=5),
    ),
    _train(
        "data/1e38 to score",
        r"a\.npz: test rows: channel 1 holds 1e\+38, over the limit .* set train\.scale=true",
        "--config.train.scale=false",
        files=lambda d: (arrays(d, 1e38, 5), _fine(d)),
        source="train={d}/b.npz,data.test={d}/a.npz",
    ),
]  # fmt: skip


def _fine(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4, 2)).astype(np.float32), np.arange(40) % 3
    np.savez(folder / "b.npz", x=x, y=y)
