"""What a model says beside what the unchanged one says: of class probabilities, or of vectors."""

from collections.abc import Callable, Sequence

import numpy as np

from resnorm_jax.reporting.metrics import score

Scores = dict[str, float]
NEIGHBOURS = 2000  # rows, most whose nearest ones are looked for


def compared(
    before: np.ndarray,
    found: Sequence[np.ndarray],
    how: Callable[[np.ndarray, np.ndarray], Scores],
) -> dict[str, object]:
    """Return scores of each seed's answers, their means and their standard deviations.

    Args:
      before: ``[N, K]`` of the unchanged model.
      found: of the changed one, one a seed.
      how: from both to the scores.
    """
    each = [how(before, answers) for answers in found]
    mean = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    spread = {name: float(np.std([one[name] for one in each])) for name in each[0]}
    return {"mean": mean, "spread": spread, "seeds": each}


def of_probabilities(
    labels: np.ndarray, classes: Sequence[str]
) -> Callable[[np.ndarray, np.ndarray], Scores]:
    """Return the comparison of log-probabilities; scores need a label of each row.

    Args:
      labels: ``[N]``, -1 where it is not known.
      classes: names.
    """

    def compare(before: np.ndarray, after: np.ndarray) -> Scores:
        out = {
            "agreement": float((after.argmax(1) == before.argmax(1)).mean()),
            "kl": float((np.exp(before) * (before - after)).sum(1).mean()),
            "largest": float(np.abs(after - before).max()),
        }
        if (labels < 0).any():
            return out
        scored = score(after, labels, classes)
        return {**out, **{name: float(scored[name]) for name in ("accuracy", "log_loss")}}

    return compare


def of_vectors(before: np.ndarray, after: np.ndarray) -> Scores:
    """Return the comparison of vectors ``[N, D]`` with those of the unchanged model.

    ``error`` is ``sum |after - before|^2 / sum |before|^2``, ``cosine`` the mean over rows of the
    cosine of both, ``nearest`` the share of rows whose nearest other row, by cosine, is the same one,
    and ``largest`` the largest difference of a number.
    """
    old, new = before.astype(np.float64), after.astype(np.float64)
    units = _units(old), _units(new)
    return {
        "cosine": float((units[0] * units[1]).sum(1).mean()),
        "error": float(np.square(new - old).sum() / np.square(old).sum()),
        "nearest": float((_nearest(units[0]) == _nearest(units[1])).mean()),
        "largest": float(np.abs(new - old).max()),
    }


def _units(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)


def _nearest(units: np.ndarray) -> np.ndarray:
    units = units[:NEIGHBOURS]
    near = units @ units.T
    np.fill_diagonal(near, -np.inf)
    return near.argmax(1)
