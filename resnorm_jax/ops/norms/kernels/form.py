"""What a norm over the last axis is, as static data of its primitives."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Operands = dict[str, Any]  # by name, only those that are there
Names = tuple[str, ...]

FORWARD = ("x", "branch", "scale", "bias")
STATISTICS = ("mean", "correction", "inverse")
TANGENT = ("x", "scale", *STATISTICS, "dx", "dscale", "dbias")
BACKWARD = ("x", "scale", *STATISTICS, "g", "stream_g")
PARAMETERS = ("scale", "bias", "dscale", "dbias")  # [D]; all others have a row for each row of x


@dataclass(frozen=True)
class Form:
    """One norm, ``(x - mean) / sqrt(var + epsilon) * (scale + scale_offset) + bias``.

    Attributes:
      subtract_mean: True for layer norm, False for RMS norm.
      epsilon: inside the root.
      scale_offset: added to the scale in the dtype of the statistics.
      implementation: as of `layer_norm`.
      dtype: of the result.
      bias_dtype: of the bias, or None where there is none.
    """

    subtract_mean: bool
    epsilon: float
    scale_offset: float
    implementation: str | None
    dtype: np.dtype | None = None
    bias_dtype: np.dtype | None = None

    @property
    def statistics(self) -> Names:
        """Names of the numbers that are kept of each row."""
        return STATISTICS if self.subtract_mean else STATISTICS[-1:]


def positional(function: Callable, form: Form, names: Names, outs: Names) -> Callable:
    """Return ``function`` of operands in the order of ``names``, giving those of ``outs``."""

    def run(*arrays: Any) -> list[Any]:
        found = function(form, outs, dict(zip(names, arrays, strict=True)))
        return [found[name] for name in outs]

    return run


def pack(operands: Operands, order: Iterable[str]) -> tuple[Names, list[Any]]:
    """Return the names of the operands that are there, in order, and the operands."""
    names = tuple(name for name in order if operands.get(name) is not None)
    return names, [operands[name] for name in names]
