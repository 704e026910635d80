"""The estimator beside MiniRocket and nearest neighbours, scored by scikit-learn and aeon."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from resnorm_jax.estimators.aeon import AeonTransformerClassifier
from resnorm_jax.estimators.sklearn import TransformerClassifier

OFFICIAL, RESAMPLE = "official", "resample"
DATA = ("JapaneseVowels", "BasicMotions")
PACKAGES = ("aeon", "scikit-learn", "numba")
Series = list[np.ndarray]


@dataclass(frozen=True)
class Contender:
    """A classifier of the table.

    Attributes:
      name: for people.
      make: seed and length of the longest series to an estimator with scikit-learn's conventions.
      seeded: whether another seed gives another result.
      aeon: in place of ``make`` for aeon's resamples.
    """

    name: str
    make: Callable[[int, int], Any]
    seeded: bool = True
    aeon: Callable[[int, int], Any] | None = None


@dataclass(frozen=True)
class Case:
    """A classifier on a split of a data set.

    Attributes:
      data: name of the set.
      contender: who is scored.
      split: `OFFICIAL`, the archive's, by scikit-learn's ``cross_val_score``; or `RESAMPLE`, of the
        same sizes and class counts, as ``aeon.benchmarking`` draws it.
      draw: seed of the classifier, and of the resample.
    """

    data: str
    contender: Contender
    split: str
    draw: int

    @property
    def key(self) -> str:
        """Its name in a file of results."""
        return f"{self.data}, {self.contender.name}, {self.split} {self.draw}"


@dataclass(frozen=True)
class Scores:
    """How often is scored: seeds on the official split, resamples of the data, and our epochs."""

    seeds: int = 5
    resamples: int = 3
    epochs: int | None = None  # the estimator's own


QUICK = Scores(1, 1, epochs=1)


def contenders(settings: Scores) -> tuple[Contender, ...]:
    """Return who is scored: ours as it is without any parameter but the seed, then the others'."""
    given: dict[str, Any] = {} if settings.epochs is None else {"epochs": settings.epochs}
    return (
        Contender(
            "rn.TransformerClassifier()",
            lambda seed, longest: TransformerClassifier(**given, random_state=seed),
            aeon=lambda seed, longest: AeonTransformerClassifier(**given, random_state=seed),
        ),
        Contender("MiniRocket", _minirocket),
        Contender("1-NN, dynamic time warping", _neighbours, seeded=False),
        Contender("majority class", _majority, seeded=False),
    )


def cases(settings: Scores) -> Iterator[Case]:
    """Yield all that is scored: each data set, classifier and split."""
    for data in DATA:
        for contender in contenders(settings):
            for seed in range(settings.seeds if contender.seeded else 1):
                yield Case(data, contender, OFFICIAL, seed)
            for draw in range(1, settings.resamples + 1):
                yield Case(data, contender, RESAMPLE, draw)


def score_row(case: Case) -> dict[str, Any]:
    """Return the accuracy of a classifier on one split of a data set that aeon has.

    The test rows choose nothing. ``cpu_seconds`` counts all threads, and compiling where no cache has
    the program.
    """
    rows, contender = load(case.data), case.contender
    longest = max(row.shape[1] for row in [*rows[0], *rows[2]])
    began = time.process_time()
    if case.split == OFFICIAL:
        accuracy = official_score(contender.make(case.draw, longest), *rows)
    else:
        make = contender.aeon or contender.make
        accuracy = resampled_score(make(case.draw, longest), rows, case.draw)
    return {
        "key": case.key,
        "data": case.data,
        "classifier": contender.name,
        "split": case.split,
        "draw": case.draw,
        "rows": [len(rows[0]), len(rows[2])],
        "accuracy": accuracy,
        "cpu_seconds": round(time.process_time() - began, 1),
    }


@cache
def load(data: str) -> tuple[Series, np.ndarray, Series, np.ndarray]:
    """Return the official split of a data set inside the aeon package, series ``[C, T]``."""
    from aeon.datasets import load_classification

    (train, y_train), (test, y_test) = (
        load_classification(data, split=split) for split in ("train", "test")
    )
    return list(train), y_train, list(test), y_test


def official_score(
    estimator: Any, train: Series, y_train: np.ndarray, test: Series, y_test: np.ndarray
) -> float:
    """Return the accuracy on the test rows, by scikit-learn's ``cross_val_score``."""
    from sklearn.model_selection import PredefinedSplit, cross_val_score

    split = PredefinedSplit([-1] * len(train) + [0] * len(test))
    labels = np.concatenate([y_train, y_test])
    scores = cross_val_score(estimator, [*train, *test], labels, cv=split, scoring="accuracy")
    return float(scores[0])


def resampled_score(estimator: Any, split: tuple[Any, ...], draw: int) -> float:
    """Return the accuracy on a split that aeon draws, by the estimator's own score."""
    from aeon.benchmarking.resampling import stratified_resample_data

    train, y_train, test, y_test = stratified_resample_data(*split, random_state=draw)
    return float(np.mean(estimator.fit(train, y_train).predict(test) == y_test))


def versions() -> dict[str, str]:
    """Return the versions of the others' packages."""
    return {name: metadata.version(name) for name in PACKAGES}


def _minirocket(seed: int, longest: int) -> Any:
    """MiniRocket takes series of one length: they are padded with zeros to the longest."""
    from aeon.classification.convolution_based import MiniRocketClassifier
    from aeon.pipeline import make_pipeline
    from aeon.transformations.collection.unequal_length import Padder

    return make_pipeline(Padder(padded_length=longest), MiniRocketClassifier(random_state=seed))


def _neighbours(seed: int, longest: int) -> Any:
    from aeon.classification.distance_based import KNeighborsTimeSeriesClassifier

    return KNeighborsTimeSeriesClassifier(distance="dtw", n_neighbors=1)


def _majority(seed: int, longest: int) -> Any:
    from sklearn.dummy import DummyClassifier

    return DummyClassifier(strategy="most_frequent")
