"""Early stopping: training ends once so many evaluations in a row found nothing better."""

from collections.abc import Mapping
from typing import Any


class Patience:
    """Counts evaluations since the best one; what it knows stands in each checkpoint's note.

    Better is as for ``train.select=best``: more accuracy, or with equal accuracy less loss, on the
    validation rows (Prechelt 1998, "Early stopping - but when?", criterion UP by patience).

    Args:
      most: evaluations without a better one that end training; None for no end.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self.best: tuple[float, ...] | None = None
        self.since = 0

    @property
    def over(self) -> bool:
        """Whether training is to end."""
        return self.most is not None and self.since >= self.most

    def saw(self, merit: tuple[float, ...]) -> None:
        """Take the merit of an evaluation, larger being better."""
        if self.best is None or merit > self.best:
            self.best, self.since = merit, 0
        else:
            self.since += 1

    def note(self) -> dict[str, Any]:
        """Return what a checkpoint's note holds of this: nothing where nothing is counted."""
        if self.most is None:
            return {}
        return {"patience": {"best": self.best and list(self.best), "since": self.since}}

    def resume(self, note: Mapping[str, Any]) -> None:
        """Take up what a checkpoint's note holds."""
        told = note.get("patience", {})
        best = told.get("best")
        self.best, self.since = None if best is None else tuple(best), told.get("since", 0)
