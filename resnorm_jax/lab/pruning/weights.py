"""Weights of a parameter tree, the small ones zeroed or all rounded to eight bits. NumPy only."""

from typing import Any

import jax
import numpy as np

KERNEL = "kernel"
# Projections to heads have two output axes, heads and width of a head; all others have one.
OUTPUT_AXES = {"query": 2, "key": 2, "value": 2}
INT8 = 127  # largest level: symmetric, so -128 is not used


def _names(path: Any) -> list[str]:
    return [str(getattr(entry, "key", entry)) for entry in path]


def kernels(params: Any) -> dict[str, np.ndarray]:
    """Return the kernels of a tree by path: weights of projections, no biases, norms or embeddings."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        "/".join(_names(path)): np.asarray(leaf)
        for path, leaf in leaves
        if _names(path)[-1] == KERNEL
    }


def replace_kernels(params: Any, new: dict[str, np.ndarray]) -> Any:
    """Return the tree with its kernels replaced."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: new.get("/".join(_names(path)), leaf), params
    )


def magnitude_pruned(params: Any, share: float) -> Any:
    """Zero all kernel weights but the largest by magnitude, over the whole model at once.

    ``round(share * n)`` of the n weights stay; of equal ones the first in the order of the tree.

    Source: Han et al. 2015 (arXiv 1506.02626), whose threshold is a multiple of the standard deviation
    of each layer's weights, and who train the rest again; here nothing is trained.
    """
    found = kernels(params)
    sizes = np.concatenate([np.abs(w).ravel() for w in found.values()])
    kept = np.zeros(sizes.size, bool)
    kept[np.argsort(-sizes, kind="stable")[: round(share * sizes.size)]] = True
    parts = np.split(kept, np.cumsum([w.size for w in found.values()])[:-1])
    pruned = {
        path: np.where(part.reshape(w.shape), w, np.zeros((), w.dtype))
        for (path, w), part in zip(found.items(), parts, strict=True)
    }
    return replace_kernels(params, pruned)


def channel_axes(path: str, rank: int) -> tuple[int, ...]:
    """Return the axes of a kernel along which each index has a scale of its own."""
    names = path.split("/")
    outputs = OUTPUT_AXES.get(names[-2] if len(names) > 1 else "", 1)
    stacked = (0,) if any(name.startswith("layers") for name in names) else ()
    return (*stacked, *range(rank - outputs, rank))


def int8_levels(w: np.ndarray, channels: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Quantize weights symmetrically: ``q = round(w / s)``, ``s = max |w| / 127`` of each channel.

    Args:
      w: weights.
      channels: axes along which each index has a scale of its own.

    Returns:
      ``q`` (int8, ``[-127, 127]``, ties to even) and ``s`` (float64, axes of length 1 elsewhere);
      the weights are ``q s``, each within ``s / 2`` of the original.

    Source: Krishnamoorthi 2018 (arXiv 1806.08342): uniform symmetric quantizer, a scale for each output
    channel, weights only.
    """
    others = tuple(axis for axis in range(w.ndim) if axis not in channels)
    wide = np.asarray(w, np.float64)
    scale = np.abs(wide).max(axis=others, keepdims=True) / INT8
    levels = np.round(wide / np.where(scale > 0, scale, 1.0))
    return levels.astype(np.int8), scale


def int8_rounded(params: Any) -> tuple[Any, dict[str, float]]:
    """Return the tree with its kernels rounded to int8 and back, and how far they moved.

    Returns:
      The tree; and ``rms_error`` (of all kernel weights, relative to their root mean square),
      ``largest_step`` (largest error in units of its scale; 0.5 at most) and ``scales`` (their number).
    """
    new, squares, moved, steps, scales = {}, 0.0, 0.0, 0.0, 0
    for path, w in kernels(params).items():
        levels, scale = int8_levels(w, channel_axes(path, w.ndim))
        back = levels * scale
        error = np.abs(back - w)
        squares, moved = squares + float((w.astype(float) ** 2).sum()), moved + (error**2).sum()
        steps = max(steps, float((error / np.where(scale > 0, scale, 1.0)).max()))
        scales += scale.size
        new[path] = back.astype(w.dtype)
    rms = float(np.sqrt(moved / squares)) if squares else 0.0
    found = {"rms_error": rms, "largest_step": steps, "scales": float(scales)}
    return replace_kernels(params, new), found
