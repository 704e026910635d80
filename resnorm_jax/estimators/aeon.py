"""`AeonTransformerClassifier`: the same classifier as one of aeon's."""

from typing import Any

import numpy as np

from resnorm_jax.estimators import missing
from resnorm_jax.estimators.parameters import Parameters

try:
    from aeon.classification import BaseClassifier
except ImportError:
    raise missing("AeonTransformerClassifier", "aeon", "series,estimators") from None
from resnorm_jax.estimators.sklearn import TransformerClassifier


class AeonTransformerClassifier(Parameters, BaseClassifier):
    """`TransformerClassifier` with aeon's interface: its collections, its tags, its pipelines.

    It takes series of unequal lengths and of several channels, and all that aeon turns into
    ``[N, C, T]`` or a list of ``[C, T_i]``.

    Args:
      arrangement: this and the others as in `TransformerClassifier`.
      norm: see there.
      depth: see there.
      width: see there.
      heads: see there.
      epochs: see there.
      batch_size: see there.
      learning_rate: see there.
      settings: see there.
      random_state: see there.

    Attributes:
      classes_: ``[K]``, the labels, sorted.
      n_classes_: K.
      estimator_: the `TransformerClassifier` that was trained.
    """

    _tags = {  # noqa: RUF012 - aeon reads a plain dictionary
        "X_inner_type": ["np-list", "numpy3D"],
        "capability:multivariate": True,
        "capability:unequal_length": True,
        "algorithm_type": "deeplearning",
    }

    def _fit(self, X: Any, y: np.ndarray) -> "AeonTransformerClassifier":
        self.estimator_ = TransformerClassifier(**self.get_params(deep=False)).fit(X, y)
        return self

    def _predict(self, X: Any) -> np.ndarray:
        return self.estimator_.predict(X)

    def _predict_proba(self, X: Any) -> np.ndarray:
        return self.estimator_.predict_proba(X)

    @classmethod
    def _get_test_params(cls, parameter_set: str = "default") -> dict[str, Any]:
        """Return the parameters that aeon's checks use: a model that trains in a second."""
        return {"depth": 1, "width": 8, "heads": 2, "epochs": 2, "batch_size": 8}
