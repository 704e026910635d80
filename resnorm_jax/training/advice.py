"""Why a step was not finite, and what helps, from what `forensics` found."""

from typing import Any

import jax
import numpy as np

from resnorm_jax.config import TrainConfig
from resnorm_jax.training.forensics import Finding, finite_in_float32
from resnorm_jax.training.step import StepOptions, TrainState

HUGE = 1e12  # beyond what any scaling of data or parameters means
LOWER = "lower optimizer.learning_rate, or give optimizer.warmup or another model.arrangement"


def explained(
    train: TrainConfig, options: StepOptions, state: TrainState, batch: Any, found: Finding,
    devices: int, losses: list[float],
) -> tuple[str, str]:  # fmt: skip
    """Return why, and what helps.

    Args:
      train: of the config.
      options: of the step.
      state: before it.
      batch: the global batch.
      found: by `forensics.examine`.
      devices: over which rows are spread.
      losses: of the training logged before it.
    """
    data = _of_data(train, batch)
    if data is not None:
        return data
    point = found.point if found.phase == "forward" else None
    if point is not None and finite_in_float32(options, state, batch, devices, point):
        why = f"it is finite in float32: {train.precision} overflows"
        return why, "set train.precision=float32, or scale the data and parameters down"
    parameter = _of_parameters(state, found)
    if parameter is not None:
        return parameter, LOWER
    if found.phase == "update":
        return "the gradient is finite, the new parameters are not", LOWER
    if losses and losses[-1] > 1.5 * min(losses):
        return f"the loss had grown from {min(losses):.4g} to {losses[-1]:.4g}", LOWER
    return _BY_PHASE[found.phase]


_BY_PHASE = {
    "forward": ("what goes in is finite, what comes out is not", LOWER),
    "loss": ("it overflows", LOWER),
    "backward": (
        "what it computes is finite, its gradient is not",
        "look there for a root, a logarithm or a division at 0, or " + LOWER,
    ),
    "gradient norm": ("its squares overflow", LOWER),
    "update": ("the new parameters are not finite", LOWER),
    "state": ("the running statistics overflow", LOWER),
    "none": (
        "operations of this device are not deterministic",
        "the run's second line says why; train.deterministic=True is the default",
    ),
}


def _of_data(train: TrainConfig, batch: Any) -> tuple[str, str] | None:
    """Return the verdict on the batch's values, if they are at fault."""
    x = np.asarray(batch["x"])
    if not np.issubdtype(x.dtype, np.inexact):
        return None
    if not np.isfinite(x).all():
        return "the data hold values that are not finite", "mend or leave out these rows"
    largest = float(np.abs(x).max())
    if largest < HUGE:
        return None
    why = f"the data hold values of {largest:.0e}"
    if train.scale:
        return f"{why}, scaled", "mend or leave out these rows: they dwarf all others"
    return f"{why}, unscaled", "set train.scale=true, or rescale the data"


def bad_data_rows(batch: Any) -> np.ndarray:
    """Return the positions of a batch's rows whose values are not finite or huge."""
    x = np.asarray(batch["x"])
    if not np.issubdtype(x.dtype, np.inexact):
        return np.zeros(0, int)
    with np.errstate(invalid="ignore"):
        fine = (np.abs(x) < HUGE).reshape(len(x), -1).all(1)
    return np.flatnonzero(~fine)


def _of_parameters(state: TrainState, found: Finding) -> str | None:
    """Return what is wrong with the parameters of the module that was found, if anything."""
    if found.phase != "forward" or found.point is None or found.point.side != "out":
        return None
    tree = state.params
    for name in found.point.path:
        if not isinstance(tree, dict) or name not in tree:
            return None
        tree = tree[name]
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        own = np.asarray(leaf) if found.point.index is None else np.asarray(leaf)[found.point.index]
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not np.isfinite(own).all():
            return f"its {name} is not finite"
        if np.abs(own).max(initial=0) > HUGE:
            return f"its {name} reaches {np.abs(own).max():.0e}"
    return None
