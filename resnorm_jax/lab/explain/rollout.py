"""Attention roll-out: how much of each input position the attention hands on. NumPy only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from resnorm_jax.arguments import as_mask
from resnorm_jax.errors import check_choice

SOURCE = "Abnar and Zuidema 2020 (arXiv 2005.00928)"


def roll_out(weights: Sequence[Any], mask: Any = None) -> np.ndarray:
    """Multiply the attention of all layers, each mixed with the identity for the skip.

    ::

        A_l = mean over heads of the weights        (allowed keys only)
        B_l = (A_l + I) / 2, rows scaled to sum to 1
        R   = B_N ... B_2 B_1

    Args:
      weights: of each attention, first layer first: ``[H, L, L]``, query by key.
      mask: ``[L]``, True where a position is valid; None for all.

    Returns:
      ``[L, L]`` float64: row t says of which input positions position t of the output is made. Rows
      and columns of padding are 0, all other rows sum to 1.

    Source: Abnar and Zuidema 2020 (arXiv 2005.00928). The half for the skip is theirs,
    whatever the model's own scales; what norms, values and feed-forward networks do is left out.
    """
    length = np.shape(weights[0])[-1] if len(weights) else len(mask)
    valid = np.ones(length, bool) if mask is None else np.asarray(as_mask("mask", mask))
    pairs = np.outer(valid, valid)
    rolled = np.diag(valid.astype(np.float64))
    for layer in weights:
        mean = np.asarray(layer, np.float64).mean(axis=0)
        mixed = np.where(pairs, (mean + np.eye(length)) / 2, 0.0)
        total = mixed.sum(axis=1, keepdims=True)
        rolled = (mixed / np.where(total > 0, total, 1.0)) @ rolled
    return rolled


def spread(kernel: int, stride: int, length: int) -> np.ndarray:
    """Return how a token's share goes to the positions that it sees, each alike.

    Args:
      kernel: positions that a token sees, from its first on.
      stride: positions from one token to the next.
      length: positions there are; tokens see nothing beyond.

    Returns:
      ``[ceil(length / stride), length]`` float64, rows sum to 1.
    """
    first, position = np.arange(0, length, stride)[:, None], np.arange(length)
    seen = (first <= position) & (position < first + kernel)
    return seen / seen.sum(axis=1, keepdims=True)


def _mean(h: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return valid / max(valid.sum(), 1)


def _pair(h: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.eye(len(valid))[:2].mean(axis=0)


def _beside(h: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return _mean(h, valid & (np.arange(len(valid)) > 0))


def _first(h: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.eye(len(valid))[0]


def _last(h: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.eye(len(valid))[np.flatnonzero(valid)[-1]]


def _max(h: np.ndarray, valid: np.ndarray) -> np.ndarray:
    winners = np.where(valid[:, None], h, -np.inf).argmax(axis=0)
    return np.bincount(winners, minlength=len(valid)) / h.shape[1]


def _statistics(h: np.ndarray, valid: np.ndarray) -> np.ndarray:
    squares = np.where(valid[:, None], (h - h[valid].mean(axis=0)) ** 2, 0.0)
    total = squares.sum(axis=0)
    even = _mean(h, valid)[:, None]
    shares = np.where(total > 0, squares / np.where(total > 0, total, 1.0), even)
    return (_mean(h, valid) + shares.mean(axis=1)) / 2


# How much of each position's output the pooled vector is made of, and in words.
POOLED: Mapping[str, tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], str]] = {
    "mean": (_mean, "the mean over positions weighs all alike"),
    "cls": (_first, "the class token alone is read"),
    "distilled": (_first, "the class token alone is read"),
    "distilled_pair": (_pair, "the class token and the distillation token are read, as one"),
    "patches": (_beside, "the mean over all but the class token weighs them alike"),
    "first": (_first, "the first position alone is read"),
    "last": (_last, "the last position alone is read"),
    "max": (
        _max,
        "each position weighs by the share of features of which it holds the largest value",
    ),
    "statistics": (
        _statistics,
        "half of the weight is even (the mean), half goes by squared distance from the mean (the "
        "deviation), averaged over features",
    ),
}


def pooled_weights(pooling: str, h: Any, mask: Any = None) -> np.ndarray:
    """Return how much of each position the pooled vector is made of: ``[L]``, the sum is 1.

    Args:
      pooling: a name of `resnorm_jax.modules.pooling.POOLING`.
      h: ``[L, D]``, the encoder's output.
      mask: ``[L]``, True where a position is valid; None for all.
    """
    check_choice("pooling", pooling, POOLED)
    wide = np.asarray(h, np.float64)
    valid = np.ones(len(wide), bool) if mask is None else np.asarray(as_mask("mask", mask))
    return POOLED[pooling][0](wide, valid)
