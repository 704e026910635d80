"""The kernels' tiles: measured on this device by the kernels' own tuner, where there is one."""

import importlib
from collections.abc import Callable
from typing import Any

from resnorm_jax.bench.cases import WIDE

TUNER = "resnorm_jax.ops.norms.kernels.tune"


def tuning(note: Callable[[str], None]) -> dict[str, Any]:
    """Run the tuner over the widths of the benchmark.

    Returns:
      ``table``, the tiles that it found, or ``skipped``, why there are none.
    """
    try:
        tune = importlib.import_module(TUNER).tune
    except ImportError:
        return {"skipped": "this version has no kernels that have tiles"}
    try:
        return {"table": tune(WIDE, ("bfloat16", "float32"), note)}
    except (NotImplementedError, ValueError, RuntimeError) as error:
        return {"skipped": str(error)}
