"""What a published claim is made of: its words, its source, its band, and how it is measured."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

Numbers = Mapping[str, float | list[float]]
Values = Sequence[float] | np.ndarray
# Stands for a loss or a norm that is not finite, so that "above" is true of it.
DIVERGED = 1e30


@dataclass(frozen=True)
class Bound:
    """Limits of one measured number; of a list, every member must lie within.

    Attributes:
      number: its name in `Measured.numbers`.
      low: least value, itself within.
      high: greatest value, itself within.
    """

    number: str
    low: float = -math.inf
    high: float = math.inf

    def holds(self, value: float | Values) -> bool:
        """Whether every value lies within; never of NaN, or of no values."""
        values = np.atleast_1d(np.asarray(value, np.float64))
        return bool(values.size and np.all((values >= self.low) & (values <= self.high)))

    @property
    def words(self) -> str:
        """The band in words."""
        name = self.number.replace("_", " ")
        if math.isinf(self.low):
            return f"{name} at most {self.high:g}"
        if math.isinf(self.high):
            return f"{name} at least {self.low:g}"
        return f"{name} in [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Line:
    """Measured points of one curve, with the least and the greatest over seeds where known."""

    label: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
      x_label: with its unit.
      y_label: with its unit.
      lines: what was measured.
      band: ``(x, low, high)``, arrays of one length, or None.
      log: which axes are logarithmic: ``""``, ``"x"``, ``"y"`` or ``"xy"``.
      title: above it.
    """

    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    band: tuple[Values, Values, Values] | None = None
    log: str = ""
    title: str = ""


@dataclass(frozen=True)
class Measured:
    """What a claim's function returns.

    Attributes:
      numbers: every measured number by name: those of the bounds, and others beside them.
      panels: what is drawn.
    """

    numbers: Numbers
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Claim:
    """One row of the table.

    Attributes:
      id: lower_snake, what ``--only`` takes.
      statement: the claim in one sentence.
      source: paper with arXiv number, and theorem, section or figure.
      bounds: the band: all must hold. It is ours, fixed before measuring, unless ``why`` says so.
      measure: function of the seeds that measures.
      setup: the set-up in one line.
      seeds: how many, unless told.
      seconds: estimate on two quiet cores.
      reading: how to read the figure.
      why: where the band comes from.
    """

    id: str
    statement: str
    source: str
    bounds: tuple[Bound, ...]
    measure: Callable[[tuple[int, ...]], Measured]
    setup: str
    seeds: int
    seconds: float
    reading: str
    why: str = field(default="ours, from a pilot, fixed before this was measured")

    @property
    def band(self) -> str:
        """The band in words."""
        return "; ".join(bound.words for bound in self.bounds)

    @property
    def command(self) -> str:
        """What measures this claim alone."""
        return f"resnorm lab theory --only={self.id}"

    def holds(self, numbers: Numbers) -> bool:
        """Whether every bound holds."""
        return all(bound.holds(numbers[bound.number]) for bound in self.bounds)


def finite(values: np.ndarray) -> np.ndarray:
    """Return the values with `DIVERGED` in place of what is not finite or larger still."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values), np.minimum(values, DIVERGED), DIVERGED)


def slope(x: Values, y: Values) -> float:
    """Return the least-squares slope of ``log y`` over ``log x``."""
    return float(np.polyfit(np.log(np.asarray(x, np.float64)), np.log(np.asarray(y, float)), 1)[0])


def spread_line(label: str, x: Values, by_seed: np.ndarray) -> Line:
    """Return a line through the means over seeds of ``by_seed [points, seeds]``, with its range."""
    values = np.asarray(by_seed, np.float64)
    low, high = values.min(1).tolist(), values.max(1).tolist()
    return Line(label, list(x), values.mean(1).tolist(), low, high)
