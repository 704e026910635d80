"""Which parameters a run trains: all, or all but frozen parts; and how fast each layer learns.

A stack holds the parameters of all its layers in one array ``[N, ...]``, so that a part may be some of
an array's rows. `Kept` says for each parameter that is trained which rows are, by its path. What is
frozen gets no gradient, no update, no decay and no room in the optimizer's state. Running statistics,
such as a batch norm's, are no parameters, and go on in frozen parts too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
from flax.traverse_util import unflatten_dict

from resnorm_jax.config_fields import OptimizerConfig
from resnorm_jax.errors import UserError
from resnorm_jax.planning.roles import ROLE_NAMES
from resnorm_jax.training.parts import (
    FIELD,
    LOW_RANK,
    PARTS,
    beside_base,
    choices,
    depth_of,
    flat,
    is_of,
    layer_numbers,
    layers_of,
    plain,
)

Kept = Mapping[str, np.ndarray | None]  # rows of a stack, or None for a whole parameter


@dataclass(frozen=True)
class Learned:
    """Parameters to what of them is trained; hashable, and read while a step is traced.

    Attributes:
      frozen: names of `PARTS`, roles, and ``layers:A-B``.
      low_rank: whether only the low-rank matrices and the head are trained.
    """

    frozen: tuple[str, ...] = ()
    low_rank: bool = False

    def __call__(self, params: Any) -> Kept:
        """Return what is trained of ``params``, arrays or shapes.

        Raises:
          UserError: for a part that the model does not have, or where nothing is left to train.
        """
        numbers = layer_numbers(params)
        depth = depth_of(numbers)
        whole = not self.low_rank or LOW_RANK not in params  # or merged already
        there = {p: n for p, n in numbers.items() if whole or beside_base(p)}
        kept = {path: np.ones(number.shape, bool) for path, number in there.items()}
        for part in self.frozen:
            found = {path: is_of(part, plain(path), n, depth) for path, n in there.items()}
            if not any(rows.any() for rows in found.values()):
                raise UserError(f"{FIELD}: {part!r}: the model has no such parameters to train")
            kept = {path: rows & ~found[path] for path, rows in kept.items()}
        if not any(rows.any() for rows in kept.values()):
            raise UserError(f"{FIELD}: {','.join(self.frozen)}: leaves nothing to train")
        return {p: None if rows.all() else np.flatnonzero(rows) for p, rows in kept.items()
                if rows.any()}  # fmt: skip


def learned_of(config: OptimizerConfig) -> Learned | None:
    """Return what an optimizer's config trains; None for all parameters.

    Raises:
      UserError: for a part that is not known.
    """
    names = [n for n in (n.strip() for n in re.split("[,+]", config.frozen or "")) if n]
    if config.frozen is not None and not names:
        raise UserError(f"{FIELD}: {config.frozen!r} names no part; {choices('')}")
    for name in names:
        if name not in PARTS and name not in ROLE_NAMES and layers_of(name) is None:
            raise UserError(f"{FIELD}: unknown part {name!r}; {choices(name)}")
    low_rank = config.lora_rank is not None
    return Learned(tuple(dict.fromkeys(names)), low_rank) if names or low_rank else None


def cut(params: Any, kept: Kept | None) -> Any:
    """Return what is trained of a tree like the parameters: without the rest, or all if None."""
    if kept is None:
        return params
    leaves = flat(params)
    parts = {p: leaves[p] if rows is None else leaves[p][rows] for p, rows in kept.items()}
    return unflatten_dict(parts, sep="/")


def join(part: Any, whole: Any, kept: Kept | None) -> Any:
    """Return ``whole`` with what `cut` takes out of it replaced by ``part``."""
    if kept is None:
        return part
    leaves, new = dict(flat(whole)), flat(part)
    for path, rows in kept.items():
        leaves[path] = new[path] if rows is None else leaves[path].at[rows].set(
            new[path], indices_are_sorted=True, unique_indices=True
        )  # fmt: skip
    return unflatten_dict(leaves, sep="/")


def trained_line(params: Any, learned: Learned) -> str:
    """Return the line that says how much of the parameters is trained."""
    whole = sum(leaf.size for leaf in flat(params).values())
    kept, leaves = learned(params), flat(params)
    part = sum(
        leaves[path].size if rows is None else len(rows) * (leaves[path].size // len(leaves[path]))
        for path, rows in kept.items()
    )
    return f"trained: {part:,} of {whole:,} parameters ({100 * part / whole:.2f} %)"


def on_part(
    inner: optax.GradientTransformation, learned: Learned | None
) -> optax.GradientTransformation:
    """Return the transform of all parameters that does its inner one on what is trained.

    Its updates of the rest are 0, and its state has room for what is trained alone.
    """
    if learned is None:
        return inner

    def init(params: Any) -> Any:
        return inner.init(cut(params, learned(params)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        kept = learned(params)
        found, state = inner.update(cut(updates, kept), state, cut(params, kept))
        zeros = optax.tree.zeros_like(updates)
        return join(found, zeros, kept), state

    return optax.GradientTransformation(init, update)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Return the transform that multiplies updates by ``decay^(N + 1 - l)``, l the layer of N.

    Source: Clark et al. 2020 (ELECTRA, arXiv 2003.10555), appendix; Bao et al. 2021 (BEiT, arXiv
    2106.08254), whose get_num_layer_for_vit in optim_factory.py numbers embeddings 0 and the head
    N + 1. There an encoder's final norm counts as the last layer; here as the head, which follows it.
    """

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, Any]:
        numbers, leaves = layer_numbers(updates), flat(updates)
        last = depth_of(numbers) + 1
        scaled = {
            path: leaf * _factor(decay, last - numbers[path], leaf) for path, leaf in leaves.items()
        }
        return unflatten_dict(scaled, sep="/"), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _factor(decay: float, power: np.ndarray, leaf: Any) -> np.ndarray:
    factor = np.asarray(decay**power, leaf.dtype)
    return factor.reshape(factor.shape + (1,) * (leaf.ndim - 1)) if factor.ndim else factor
