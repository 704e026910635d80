"""`TransformerClassifier`: a Transformer with scikit-learn's conventions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.estimators import missing
from resnorm_jax.estimators.fitting import Fitted, fit
from resnorm_jax.estimators.parameters import Parameters, config_of, in_its_words, seed_of

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import (
        check_array,
        check_consistent_length,
        check_is_fitted,
        column_or_1d,
        validate_data,
    )
except ImportError:
    raise missing("TransformerClassifier", "scikit-learn 1.6", "estimators") from None


class TransformerClassifier(Parameters, ClassifierMixin, BaseEstimator):
    """Classify time series by a Transformer encoder, in scikit-learn's way.

    ``p(class | X) = softmax(head(pool(encoder(X))))``, trained by cross-entropy with AdamW: the model
    and the training of ``train.py``. Each channel is scaled by the training rows. Programs are compiled
    once for all fits of equal shapes and settings.

    ``X`` is, in `fit` and all others alike:

    * ``[N, C, T]``: N series of C channels and T steps, aeon's layout;
    * a list of N arrays ``[C, T_i]``, each of its own length, which may be longer than in training;
    * ``[N, T]``: N series of one channel. So a table of features, as scikit-learn's own, is read as
      the series of its columns.

    Args:
      arrangement: where norms stand and how branches are added: ``rn.arrangements.names()``.
      norm: of ``rn.norms.names()``.
      depth: layers.
      width: of the stream; a multiple of ``heads``.
      heads: of attention.
      epochs: passes over the training rows.
      batch_size: rows of an update.
      learning_rate: largest; it rises over the first tenth of the updates, then falls as a cosine.
      settings: other fields of a config, path to value: ``{"model.pooling": "mean", "train.steps":
        200}``; those of ``resnorm_jax.config`` under ``model``, ``optimizer``, ``train``, and
        ``devices``.
      random_state: seed of initial values, order of rows and dropout: a whole number (the same seed
        gives the same bits), a ``numpy.random.RandomState``, or None for NumPy's own.

    Attributes:
      classes_: ``[K]``, the labels, sorted.
      n_features_in_: C, or T of a matrix ``[N, T]``.
      feature_names_in_: names of a data frame's columns, where it was one.
      fitted_: the trained model; pickled as the bytes of a safetensors file.

    >>> import numpy as np
    >>> X = [np.full((2, length), length % 2.0) for length in range(3, 11)]
    >>> small = {"depth": 1, "width": 16, "heads": 2, "learning_rate": 1e-2}
    >>> model = TransformerClassifier(**small, epochs=40, random_state=0)
    >>> model.fit(X, ["odd", "even"] * 4).predict(X[:2])
    array(['odd', 'even'], dtype='<U4')
    """

    def fit(self, X: Any, y: Any) -> "TransformerClassifier":
        """Train on series ``X`` with labels ``y [N]``; return the estimator.

        Raises:
          UserError: a `ValueError` that names the parameter, or the row, counted from 0.
          DivergedError: a loss is not finite.
        """
        rows, y = self._training_rows(X, y)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise UserError(f"y: one class, {classes[0].item()!r}; give at least two")
        with in_its_words():
            config = config_of(self.get_params(deep=False), seed_of(self.random_state))
            self.fitted_ = fit(config, rows, labels, len(classes))
        self.classes_ = classes
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities ``[N, K]`` float64, in the order of ``classes_``."""
        check_is_fitted(self)
        with in_its_words():
            chances = np.exp(self.fitted_.log_probs(self._rows(X)).astype(np.float64))
        return chances / chances.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row, ``[N]``."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def __sklearn_tags__(self) -> Any:
        """Say that arrays may have three axes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """Return plain values, the trained model as bytes."""
        state = super().__getstate__()
        return {k: v.to_bytes() if isinstance(v, Fitted) else v for k, v in state.items()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take up what `__getstate__` returned."""
        state = dict(state)
        if "fitted_" in state:
            state["fitted_"] = Fitted.from_bytes(state["fitted_"])
        super().__setstate__(state)

    def _training_rows(self, X: Any, y: Any) -> tuple[list[np.ndarray], np.ndarray]:
        """Return rows ``[T, C]`` and labels, checked; note how many features there are."""
        if not _is_list(X):
            X, y = validate_data(self, X, y, allow_nd=True)
            return _cut(X), y
        y = column_or_1d(y, warn=True)
        check_consistent_length(X, y)
        rows = _listed(X, None)
        self.n_features_in_ = rows[0].shape[1]
        self.__dict__.pop("feature_names_in_", None)  # of a fit before
        return rows, y

    def _rows(self, X: Any) -> list[np.ndarray]:
        if _is_list(X):
            return _listed(X, self.n_features_in_)
        return _cut(validate_data(self, X, reset=False, allow_nd=True))


def _is_list(X: Any) -> bool:
    """Whether series are given one by one; a list of lists of numbers is a matrix."""
    boxed = isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1
    return (boxed or isinstance(X, list | tuple)) and len(X) > 0 and np.ndim(X[0]) == 2


def _cut(X: np.ndarray) -> list[np.ndarray]:
    """Return the rows ``[T, C]`` of ``[N, T]`` or ``[N, C, T]``."""
    if X.ndim not in (2, 3):
        raise UserError(f"X: shape {X.shape}; give [N, C, T], [N, T] or a list of [C, T]")
    return list(X[:, :, None] if X.ndim == 2 else X.transpose(0, 2, 1))


def _listed(X: Sequence[Any], channels: int | None) -> list[np.ndarray]:
    """Return the rows ``[T, C]`` of a list of ``[C, T]``."""
    rows = []
    for index, row in enumerate(X):
        name, shape = f"X[{index}]", np.shape(row)
        if len(shape) != 2 or shape[0] != (channels or shape[0]) or not shape[1]:
            raise UserError(f"{name}: shape {shape}, expected [{channels or 'C'}, T]")
        channels = shape[0]
        rows.append(check_array(row, input_name=name).T)
    return rows
