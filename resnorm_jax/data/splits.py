"""Stratified splits, as pure functions of the labels and a seed."""

import numpy as np

from resnorm_jax.data.row_arrays import blocks, counts, parts_of, where
from resnorm_jax.errors import UserError
from resnorm_jax.schema import SEED


def held_counts(counts: np.ndarray, fraction: float) -> np.ndarray:
    """Return how many rows of each class to hold out.

    The total is ``round(fraction * counts.sum())`` where that leaves every class a training row;
    classes get their share rounded down, the rest goes to the largest remainders.

    Args:
      counts: ``[K]`` rows of each class.
      fraction: of the rows, between 0 and 1.

    Returns:
      ``[K]`` integers, each below its count (0 where the count is 0).
    """
    room = np.maximum(counts - 1, 0)
    quota = counts * fraction
    held = np.minimum(np.floor(quota).astype(np.int64), room)
    missing = round(float(fraction * counts.sum())) - int(held.sum())
    order = np.argsort(-(quota - np.floor(quota)), kind="stable")
    candidates = order[held[order] < room[order]]
    held[candidates[: max(missing, 0)]] += 1
    return held


def strata(y: np.ndarray) -> np.ndarray:
    """Return the class of each row; where a row has any number of labels, the rarest that it has.

    Rows without a label are a class of their own. Rare labels come first as in Sechidis, Tsoumakas and
    Vlahavas, "On the Stratification of Multi-Label Data" (ECML PKDD 2011), in one pass, however.
    """
    if y.ndim == 1:
        return y
    often = held_labels(y)
    groups = np.empty(len(y), np.int32)
    for block in blocks(len(y)):
        has = y[block] > 0
        rarest = np.where(has, often, len(y) + 1).argmin(axis=1)
        groups[block] = np.where(has.any(axis=1), rarest, y.shape[1])
    return groups


def held_labels(y: np.ndarray) -> np.ndarray:
    """Return how many rows have each label, of ``[N, K]`` where those that a row has are over 0."""
    return np.sum([(part > 0).sum(axis=0) for part in parts_of(y)], axis=0)


def _each_kept(y: np.ndarray, held: np.ndarray) -> None:
    """Take from the rows held out, a mask, one of each label that would have no other row."""
    for label in np.flatnonzero(held_labels(y)):
        has = y[:, label] > 0
        if not (has & ~held).any():
            held[has.argmax()] = False


def _rows_of(groups: np.ndarray, label: int) -> np.ndarray:
    """Return the rows of a class, ascending."""
    inside = np.empty(len(groups), bool)
    for block in blocks(len(groups)):
        inside[block] = groups[block] == label
    return where(inside)


def stratified_split(
    y: np.ndarray, fraction: float, seed: int, field: str
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows at random, class by class; see `strata` where a row has any number of labels.

    Args:
      y: ``[N]`` class indices, or ``[N, K]`` of 0 and 1.
      fraction: of the rows to hold out.
      seed: of the choice.
      field: config field that asked for the split, for the message.

    Returns:
      Row indices kept and held out, each ascending. Every class keeps at least one row.

    Raises:
      UserError: the seed is negative, or no row could be held out.
    """
    SEED.check(f"{field.rsplit('.', 1)[0]}.seed", seed)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
    groups = strata(y)
    out = np.zeros(len(y), bool)
    rows_of_class = counts(groups)
    for label, count in enumerate(held_counts(rows_of_class, fraction)):
        rows = _rows_of(groups, label)
        rng.shuffle(rows)  # the order of `rng.permutation`, in place
        for part in parts_of(rows[:count]):
            out[part] = True
    if y.ndim == 2:
        _each_kept(y, out)
    if not out.any():
        fix = (
            "; raise it or give more rows"
            if rows_of_class.max() > 1
            else ": training needs a row of each class, and no class has two; give more rows of each"
        )
        raise UserError(f"{field}: {fraction} of {len(y)} rows holds out nothing{fix}")
    return where(~out), where(out)
