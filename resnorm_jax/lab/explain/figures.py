"""Figures of an explanation: shares beside the input, and a logit's parts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from resnorm_jax.reporting.figures import new_figure

PER_CENT = "share in roll-out (%)"


def draw_input(found: Mapping[str, Any]) -> Any:
    """Draw the input and the share of each position; None for tokens, which are text."""
    draw = DRAWN.get(found["kind"])
    return draw(found) if draw is not None else None


def _draw_series(found: Mapping[str, Any]) -> Any:
    figure = new_figure("roll-out", 9.0, 4.6)
    if figure is None:
        return None
    x, shares = np.asarray(found["input"], float), np.asarray(found["shares"])
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    steps = np.arange(1, len(x) + 1)
    if x.shape[1] == 1:
        above.plot(steps, x[:, 0], marker="." if len(x) < 60 else None, color="0.2")
        above.set_ylabel("value (as the model sees it)")
    else:
        extent = (0.5, len(x) + 0.5, 0.5, x.shape[1] + 0.5)
        image = above.imshow(x.T, aspect="auto", origin="lower", cmap="gray", extent=extent)
        figure.colorbar(image, ax=above, label="value (as the model sees it)")
        above.set_ylabel("channel")
    below.bar(steps, 100 * shares, width=0.9, color="tab:orange")
    even, edges = 100 * np.asarray(found["even_shares"]), np.arange(len(x) + 1) + 0.5
    below.stairs(even, edges, baseline=None, color="0.4", linestyle="--", linewidth=1)
    below.set_xlabel("position (time step)")
    below.set_ylabel(PER_CENT)
    return figure


def _draw_image(found: Mapping[str, Any]) -> Any:
    figure = new_figure("roll-out", 8.0, 4.0)
    if figure is None:
        return None
    x = np.asarray(found["input"], float)
    low, high = x.min(), x.max()
    shown = (x - low) / (high - low or 1.0)
    plain, shares = figure.subplots(1, 2)
    if x.shape[-1] in (3, 4):
        plain.imshow(shown)
    else:
        plain.imshow(shown.mean(axis=-1), cmap="gray")
    plain.set_xlabel("column (pixels)")
    plain.set_ylabel("row (pixels)")
    heat = 100 * np.asarray(found["shares"]).reshape(found["grid"])
    image = shares.imshow(heat, cmap="viridis", vmin=0)
    shares.set_xlabel("column (patches)")
    shares.set_ylabel("row (patches)")
    figure.colorbar(image, ax=shares, label=PER_CENT)
    return figure


DRAWN = {"features": _draw_series, "images": _draw_image}


def draw_parts(attribution: Mapping[str, Any], name: str) -> Any:
    """Draw what each branch adds to a logit: one bar each, the first layer at the top."""
    parts = attribution["parts"]
    figure = new_figure("parts of the logit", 8.0, min(40.0, 1.6 + 0.24 * (len(parts) + 1)))
    if figure is None:
        return None
    axes = figure.subplots()
    names = [attribution["starts_from"].split(",")[0]]
    names += [f"{p['layer']}  {p['branch']}" if p["layer"] else p["branch"] for p in parts]
    values = np.array([attribution["start"], *(p["contribution"] for p in parts)])
    colors = ["0.6", *("tab:blue" if v >= 0 else "tab:red" for v in values[1:])]
    axes.barh(np.arange(len(values)), values, color=colors)
    axes.set_yticks(np.arange(len(values)), names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_xlabel(f"contribution to the logit of class {name}", parse_math=False)
    axes.set_ylabel("layer and branch")
    axes.grid(True, axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure


def draw_places(found: Mapping[str, Any]) -> Any:
    """Draw contributions by branch and position, red below zero and blue above."""
    parts = found["attribution"]["parts"]
    heat = np.array([p["by_position"] for p in parts])
    figure = new_figure("contributions by position", 9.0, min(40.0, 1.6 + 0.22 * len(parts)))
    if figure is None:
        return None
    axes = figure.subplots()
    top = np.abs(heat).max() or 1.0
    edges = (0.5, heat.shape[1] + 0.5, len(parts) + 0.5, 0.5)
    image = axes.imshow(heat, aspect="auto", cmap="RdBu", vmin=-top, vmax=top, extent=edges)
    names = [f"{p['layer']}  {p['branch']}" if p["layer"] else p["branch"] for p in parts]
    axes.set_yticks(np.arange(1, len(parts) + 1), names, fontsize=8, parse_math=False)
    axes.set_xlabel("position of the stream")
    axes.set_ylabel("layer and branch")
    figure.colorbar(image, ax=axes, label="contribution (logit)")
    return figure
