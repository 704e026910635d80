"""What flows through a model, layer by layer: `measure`, and what it means."""

from resnorm_jax.lab.signals.jacobian import JacobianOptions
from resnorm_jax.lab.signals.measure import ALL, CHEAP, Signals, measure
from resnorm_jax.lab.signals.summary import FEATURES, summary
from resnorm_jax.lab.signals.table import STATISTICS, Statistic

__all__ = [
    "ALL",
    "CHEAP",
    "FEATURES",
    "STATISTICS",
    "JacobianOptions",
    "Signals",
    "Statistic",
    "measure",
    "summary",
]
