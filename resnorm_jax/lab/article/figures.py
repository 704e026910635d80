"""The report's figures."""

from typing import Any

import numpy as np

from resnorm_jax.reporting.figures import new_figure

Found = dict[str, Any]
COLORS = {
    "neither": "tab:red",
    "norm only": "tab:orange",
    "skip only": "tab:purple",
    "skip and norm": "tab:blue",
    "skip and detached norm": "tab:green",
}


def _figure(columns: int = 1, width: float = 5.2, height: float = 3.6) -> tuple[Any, Any]:
    figure = new_figure("the report's figures", width * columns, height)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.grid(True, color="0.9")
        axis.set_axisbelow(True)
    return figure, axes


def listing(found: Found) -> Any:
    """L4's loss and accuracy by epoch."""
    figure, (left, right) = _figure(2)
    losses, accuracy = np.array(found["losses"]), 100 * np.array(found["accuracy"])
    for each in losses:
        left.plot(np.arange(1, len(each) + 1), each, color="tab:blue", alpha=0.6)
    for each in accuracy:
        right.plot(np.arange(len(each)), each, color="tab:blue", alpha=0.6)
    right.axhline(100 * found["numbers"]["majority"], color="0.4", ls="--", label="majority class")
    left.set(xlabel="epoch", ylabel="training loss (nats), mean of the epoch")
    right.set(xlabel="epochs done", ylabel="test accuracy (%)")
    right.legend()
    return figure


def seeds(found: Found) -> Any:
    """L6's band in each reading, and the article's curve."""
    figure, axes = _figure(len(found["readings"]))
    for axis, (name, reading) in zip(axes, found["readings"].items(), strict=True):
        least, low, middle, high, most = np.array(reading["band"])
        steps = np.arange(1, len(middle) + 1)
        axis.fill_between(steps, least, most, color="tab:blue", alpha=0.15, label="all seeds")
        axis.fill_between(steps, low, high, color="tab:blue", alpha=0.3, label="95 % of seeds")
        axis.plot(steps, middle, color="tab:blue", label="median")
        axis.plot(steps, found["article"], "o-", color="tab:red", ms=4, label="as printed")
        axis.set(
            title=name.replace("_", " "), xlabel="step", ylabel="loss before the update (nats)"
        )
        axis.legend(fontsize=8)
    return figure


def gradients(found: Found) -> Any:
    """C1: gradient norm by layer at the deepest, one panel a start."""
    starts = list(dict.fromkeys(row["start"] for row in found["profiles"]))
    deepest = max(row["depth"] for row in found["profiles"])
    figure, axes = _figure(len(starts))
    for axis, start in zip(axes, starts, strict=True):
        for row in found["profiles"]:
            if (row["start"], row["depth"]) == (start, deepest):
                norms = np.maximum(row["median"], 1e-38)
                axis.semilogy(
                    np.arange(1, deepest + 1), norms / norms[-1],
                    color=COLORS[row["network"]], label=row["network"],
                )  # fmt: skip
        axis.set(title=f"start: {start}", xlabel="block", ylabel="gradient norm, last block = 1")
        axis.legend(fontsize=8)
    return figure


def depth_scores(found: Found) -> Any:
    """C1 and C4: accuracy against depth, and share lost against learning rate."""
    figure, (left, right) = _figure(2)
    for label in dict.fromkeys(row["network"] for row in found["trained"]):
        rows = [row for row in found["trained"] if row["network"] == label]
        depths = [row["depth"] for row in rows]
        left.plot(
            depths, [100 * row["best"] for row in rows], "o-", color=COLORS[label], label=label
        )
        shares = [100 * np.mean(row["lost"]) for row in rows]
        right.plot(depths, shares, "o-", color=COLORS[label], label=label)
    left.axhline(100 * found["numbers"]["majority"], color="0.4", ls="--", label="majority class")
    left.set(xscale="log", xlabel="blocks", ylabel="test accuracy (%) at the best rate")
    right.set(xscale="log", xlabel="blocks", ylabel="seeds x rates that diverge (%)")
    left.legend(fontsize=8)
    return figure


def speed(found: Found) -> Any:
    """C2: loss by step at each network's own rate."""
    figure, (axis,) = _figure(1, 6.5)
    for row in found["rows"]:
        loss = np.array(row["loss"])
        steps = row["every"] * np.arange(loss.shape[1])
        color = COLORS[row["network"]]
        label = f"{row['network']}, rate {row['rate']:g}"
        axis.plot(steps, np.median(loss, axis=0), color=color, label=label)
        axis.fill_between(steps, loss.min(0), loss.max(0), color=color, alpha=0.15)
    axis.axhline(found["numbers"]["target_loss"], color="0.4", ls="--", label="target")
    axis.set(xlabel="step", ylabel="training loss (nats)", ylim=(0, 3))
    axis.legend(fontsize=8)
    return figure


def drift(found: Found) -> Any:
    """C3: drift of mean and variance, a point a seed."""
    figure, axes = _figure(2)
    names = [row["network"] for row in found["rows"]]
    panels = (
        ("drift_mean", "mean: deviations moved between looks"),
        ("drift_variance", "variance: |log change| between looks"),
    )
    for axis, (key, label) in zip(axes, panels, strict=True):
        for n, row in enumerate(found["rows"]):
            axis.plot([n] * len(row[key]), row[key], "o", color=COLORS[row["network"]], alpha=0.6)
        axis.set_yscale("log")
        axis.set_xticks(range(len(names)), [n.replace(" ", "\n") for n in names], fontsize=8)
        axis.set(ylabel=label)
    return figure


def bars(key: str, baseline: Any) -> Any:
    """Return what draws accuracy by ``key`` and network; ``baseline`` is told of the findings."""

    def draw(found: Found) -> Any:
        figure, (axis,) = _figure(1, 7.5)
        groups = list(dict.fromkeys(row[key] for row in found["rows"]))
        labels = list(dict.fromkeys(row["network"] for row in found["rows"]))
        wide = 0.8 / len(labels)
        for n, label in enumerate(labels):
            rows = [row for row in found["rows"] if row["network"] == label]
            axis.bar(
                np.arange(len(rows)) + n * wide - 0.4 + wide / 2, [100 * r["mean"] for r in rows],
                wide, yerr=[100 * r["sd"] for r in rows], color=COLORS[label], label=label,
                error_kw={"lw": 1},
            )  # fmt: skip
        for n, group in enumerate(groups):
            axis.hlines(100 * baseline(found, group), n - 0.45, n + 0.45, color="k", ls="--")
        axis.set_xticks(range(len(groups)), groups, fontsize=8)
        axis.set(ylabel="test accuracy (%), mean and deviation over seeds", ylim=(0, 105))
        axis.legend(fontsize=8, ncols=len(labels))
        return figure

    return draw


def compression(found: Found) -> Any:
    """C8: accuracy against what is kept."""
    figure, (left, right) = _figure(2)
    for axis, key, label in (
        (left, "pruned", "share of weights kept (%)"),
        (right, "rounded", "bits of a weight"),
    ):
        x, y = np.array(found[key]).T
        axis.plot(100 * x if key == "pruned" else x, 100 * y, "o-", color="tab:blue")
        axis.axhline(100 * found["numbers"]["majority"], color="0.4", ls="--", label="majority")
        axis.set(xlabel=label, ylabel="test accuracy (%)", ylim=(0, 105))
        axis.legend(fontsize=8)
    return figure


def attention(found: Found) -> Any:
    """C8: where each layer looks, for one row, and how much it writes."""
    figure, axes = _figure(len(found["attention"]), 4.2, 3.8)
    for n, (axis, each) in enumerate(zip(axes, found["attention"], strict=True)):
        image = axis.imshow(np.array(each), cmap="Blues", vmin=0)
        axis.grid(False)
        axis.set(
            title=f"layer {n + 1}: {100 * found['writes'][n]:.0f} % of the write",
            xlabel="position looked at", ylabel="position that looks",
        )  # fmt: skip
        figure.colorbar(image, ax=axis, shrink=0.8, label="attention, mean over heads")
    return figure
