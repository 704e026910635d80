"""The figure of a compressed run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.reporting.figures import new_figure


def draw_shares(
    curves: Mapping[str, Sequence[tuple[float, float]]], majority: float, title: str
) -> Any:
    """Draw accuracy against the share of a model that is kept, a curve for each way to cut.

    Args:
      curves: by name, pairs of share kept and accuracy, both fractions.
      majority: accuracy of the majority class.
      title: above the figure.

    Returns:
      The figure, or None, after a note, where matplotlib is missing.
    """
    figure = new_figure("share kept", 8.0, 4.6)
    if figure is None:
        return None
    axes = figure.subplots()
    for marker, (name, points) in zip("osD^v", curves.items(), strict=False):
        shares, accuracies = 100 * np.asarray(sorted(points)).T
        axes.plot(shares, accuracies, marker=marker, markersize=5, label=name)
    axes.axhline(100 * majority, color="0.5", linestyle="--", label="majority class")
    axes.set_xlabel("size kept (% of the whole model's)")
    axes.set_ylabel("accuracy on test rows (%)")
    axes.set_title(title, fontsize=12, parse_math=False)
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure
