"""A few numbers of each arrangement: a vector to compare by, and a line of a table."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from resnorm_jax.lab.signals.measure import Signals


@dataclass(frozen=True)
class Feature:
    """A number of each arrangement.

    Attributes:
      name: in code and in JSON.
      label: over its column, with its unit.
      group: title of the table in which it stands.
      definition: what it is.
      needs: statistic that it is computed from.
      compute: from an arrangement's signals to the number.
    """

    name: str
    label: str
    group: str
    definition: str
    needs: str
    compute: Callable[[Signals], float]


def _log10(value: float) -> float:
    """Clipped: 0 and infinity are 40 decades away."""
    with np.errstate(divide="ignore"):
        return float(np.clip(np.log10(value), -40, 40))


def _ends(signals: Signals, name: str) -> float:
    line = signals.line(name).astype(np.float64)
    return _log10(line[-1]) - _log10(line[0])


def _gradient(signals: Signals, group: str) -> np.ndarray:
    return signals.line("layer_gradient", group).astype(np.float64)


def _mean(signals: Signals, name: str) -> float:
    lines = signals.values[name].values()
    return float(np.mean([v for line in lines for v in line if np.isfinite(v)]))


def _tail(signals: Signals) -> float:
    """Mean log10 branch ratio of the last quarter of the layers."""
    lines = signals.values["branch_ratio"].values()
    start = -max(1, signals.depth // 4)
    return float(np.mean([_log10(v) for line in lines for v in line[start:] if np.isfinite(v)]))


def _query_value(signals: Signals) -> float:
    query, value = _gradient(signals, "query"), _gradient(signals, "value")
    last = np.flatnonzero(np.isfinite(query))[-1]
    return _log10(query[last]) - _log10(value[last])


def _spread(signals: Signals) -> float:
    value = _gradient(signals, "value")
    kept = [_log10(v) for v in value[np.isfinite(value)]]
    return max(kept) - min(kept)


STREAM, OUTPUT, GRADIENT, JACOBIAN = (
    "Stream",
    "Attention and output",
    "Gradient",
    "Jacobian of the stack",
)
FEATURES = (
    Feature("power", "power at the end, log10", STREAM,
            "log10 stream power after the last layer", "stream_power",
            lambda s: _log10(s.line("stream_power")[-1])),
    Feature("growth", "growth of power, decades", STREAM,
            "log10 of last over first stream power", "stream_power",
            lambda s: _ends(s, "stream_power")),
    Feature("late_branches", "late branch over stream, log10", STREAM,
            "mean log10 branch / stream, last quarter", "branch_ratio", _tail),
    Feature("token_cosine", "token cosine at the end", STREAM,
            "after the last layer", "token_cosine",
            lambda s: float(s.line("token_cosine")[-1])),
    Feature("entropy", "attention entropy, share of log n", OUTPUT,
            "mean attention entropy", "attention_entropy",
            lambda s: _mean(s, "attention_entropy")),
    Feature("example_cosine", "example cosine", OUTPUT, "of the pooled output", "example_cosine",
            lambda s: float(s.line("example_cosine"))),
    Feature("gradient_slope", "last over first layer, decades", GRADIENT,
            "log10 of the stream's gradient, last over first", "stream_gradient",
            lambda s: _ends(s, "stream_gradient")),
    Feature("gradient_start", "at the first layer, log10", GRADIENT,
            "log10 of the stream's gradient at the first layer", "stream_gradient",
            lambda s: _log10(s.line("stream_gradient")[0])),
    Feature("query_value", "query over value, log10", GRADIENT,
            "log10 of query over value gradient, last attention", "layer_gradient", _query_value),
    Feature("gradient_spread", "spread over layers, decades", GRADIENT,
            "decades between layers' value gradients", "layer_gradient", _spread),
    Feature("loss", "loss, nats", OUTPUT, "of the batch", "loss", lambda s: float(s.line("loss"))),
    Feature("singular_value", "largest singular value, factor", JACOBIAN, "largest",
            "jacobian_singular_values", lambda s: float(s.line("jacobian_singular_values")[0])),
    Feature("mean_square", "mean square, factor^2", JACOBIAN, "mean squared singular value",
            "jacobian_mean_square", lambda s: float(s.line("jacobian_mean_square", "mean"))),
    Feature("logits_change", "logits moved by one step, rms", OUTPUT, "rms, by one optimizer step",
            "logits_change", lambda s: float(s.line("logits_change"))),
)  # fmt: skip
GROUPS = tuple(dict.fromkeys(feature.group for feature in FEATURES))


def summary(signals: Signals) -> dict[str, float]:
    """Return the numbers of `FEATURES` that can be had from what was measured.

    >>> import numpy as np
    >>> power = {"stream_power": {"": np.array([1.0, 10.0])}}
    >>> summary(Signals(power, depth=1, notes={}))
    {'power': 1.0, 'growth': 1.0}
    """
    return {f.name: f.compute(signals) for f in FEATURES if f.needs in signals.values}
