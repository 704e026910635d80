"""Rules that turn measured numbers into a verdict, as data."""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass

OPERATORS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
KINDS = {"holds": "good", "holds within": "fair", "does not hold": "bad"}


@dataclass(frozen=True)
class Check:
    """``numbers[number] sign bound``; a number that is NaN fails."""

    number: str
    sign: str
    bound: float

    def passes(self, numbers: Mapping[str, float]) -> bool:
        """Whether the measured number is as the check says."""
        value = float(numbers[self.number])
        return not math.isnan(value) and bool(OPERATORS[self.sign](value, self.bound))

    def __str__(self) -> str:
        return f"{self.number} {self.sign} {self.bound:g}"


@dataclass(frozen=True)
class Rule:
    """When a claim holds, and when it holds within a scope.

    Attributes:
      holds: all must pass.
      within: all must pass, where not all of ``holds`` do; empty where there is no such case.
      scope: within what it holds then.
    """

    holds: tuple[Check, ...]
    within: tuple[Check, ...] = ()
    scope: str = ""

    def verdict(self, numbers: Mapping[str, float]) -> tuple[str, str]:
        """Return the verdict, and its kind for `resnorm_jax.reporting.html.verdict`."""
        if all(check.passes(numbers) for check in self.holds):
            return "holds", KINDS["holds"]
        if self.within and all(check.passes(numbers) for check in self.within):
            return f"holds within: {self.scope}", KINDS["holds within"]
        return "does not hold", KINDS["does not hold"]

    def __str__(self) -> str:
        text = "holds if " + " and ".join(map(str, self.holds))
        if self.within:
            text += f"; holds within ({self.scope}) if " + " and ".join(map(str, self.within))
        return text + "; else does not hold"
