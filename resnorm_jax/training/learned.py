"""Which parameters a run trains: all, or all but frozen parts; and in which layer each stands.

A stack holds the parameters of all its layers in one array ``[N, ...]``, so that a part may be some of
an array's rows. `Kept` says for each parameter that is trained which rows are, by its path. What is
frozen gets no gradient, no update, no decay and no room in the optimizer's state. Running statistics,
such as a batch norm's, are no parameters, and go on in frozen parts too.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from resnorm_jax.config_fields import OptimizerConfig
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.planning.roles import ROLE_NAMES, role_of

Kept = Mapping[str, np.ndarray | None]  # rows of a stack, or None for a whole parameter
LOW_RANK = "lora"  # the subtree that `low_rank` adds; inside it paths are as outside
FIELD = "config.optimizer.frozen"

_STACK = re.compile(r"(^|/)(layers(_\d+)?)/")
_FIRST = re.compile(r"^(front_end|positions|cls|projection)(/|$)|(^|/)embedding_norm/")

# Parts of a model by name: whether a path is of it. Layers and roles are told otherwise.
PARTS: dict[str, Callable[[str], bool]] = {
    "embeddings": lambda path: bool(_FIRST.search(path)),
    "encoder": lambda path: path.startswith("encoder/"),
    "norms": lambda path: bool(re.search(r"(^|/)\w*norm\w*/", path)),
    "head": lambda path: not path.startswith("encoder/") and not _FIRST.search(path),
}


def layer_numbers(params: Any) -> dict[str, np.ndarray]:
    """Return the layer in which each parameter stands, by path: ``[N]`` for a stack's, else ``[]``.

    Embeddings and positions are layer 0, the N layers are counted from 1 through all segments, and
    what comes after them (final norm, head) is layer N + 1.

    >>> tree = {"front_end": {"a": np.ones(2)}, "encoder": {"layers": {"b": np.ones((3, 2))}}}
    >>> {path: number.tolist() for path, number in layer_numbers(tree).items()}
    {'front_end/a': 0, 'encoder/layers/b': [1, 2, 3]}
    """
    leaves = _flat(params)
    stacks = {path: m[2] for path in leaves if (m := _STACK.search(f"{_plain(path)}/"))}
    sizes = {name: leaves[path].shape[0] for path, name in stacks.items()}
    starts, depth = {}, 0
    for name in sorted(sizes, key=lambda n: int(n.partition("_")[2] or 0)):
        starts[name], depth = depth, depth + sizes[name]
    return {
        path: np.arange(sizes[stacks[path]]) + starts[stacks[path]] + 1
        if path in stacks
        else np.array(0 if _FIRST.search(_plain(path)) else depth + 1)
        for path in leaves
    }


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
        depth = _depth(numbers)
        whole = not self.low_rank or LOW_RANK not in params  # or merged already
        there = {p: n for p, n in numbers.items() if whole or _beside_base(p)}
        kept = {path: np.ones(number.shape, bool) for path, number in there.items()}
        for part in self.frozen:
            found = {path: _is_of(part, _plain(path), n, depth) for path, n in there.items()}
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
        raise UserError(f"{FIELD}: {config.frozen!r} names no part; {_choices('')}")
    for name in names:
        if name not in PARTS and name not in ROLE_NAMES and _layers(name) is None:
            raise UserError(f"{FIELD}: unknown part {name!r}; {_choices(name)}")
    low_rank = config.lora_rank is not None
    return Learned(tuple(dict.fromkeys(names)), low_rank) if names or low_rank else None


def cut(params: Any, kept: Kept | None) -> Any:
    """Return what is trained of a tree like the parameters: without the rest, or all if None."""
    if kept is None:
        return params
    leaves = _flat(params)
    parts = {p: leaves[p] if rows is None else leaves[p][rows] for p, rows in kept.items()}
    return unflatten_dict(parts, sep="/")


def join(part: Any, whole: Any, kept: Kept | None) -> Any:
    """Return ``whole`` with what `cut` takes out of it replaced by ``part``."""
    if kept is None:
        return part
    leaves, new = dict(_flat(whole)), _flat(part)
    for path, rows in kept.items():
        leaves[path] = new[path] if rows is None else leaves[path].at[rows].set(
            new[path], indices_are_sorted=True, unique_indices=True
        )  # fmt: skip
    return unflatten_dict(leaves, sep="/")


def trained_line(params: Any, learned: Learned) -> str:
    """Return the line that says how much of the parameters is trained."""
    whole = sum(leaf.size for leaf in _flat(params).values())
    kept, leaves = learned(params), _flat(params)
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
        numbers, leaves = layer_numbers(updates), _flat(updates)
        last = _depth(numbers) + 1
        scaled = {
            path: leaf * _factor(decay, last - numbers[path], leaf) for path, leaf in leaves.items()
        }
        return unflatten_dict(scaled, sep="/"), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _depth(numbers: Mapping[str, np.ndarray]) -> int:
    return max((int(n.max()) for n in numbers.values() if n.ndim), default=0)


def _factor(decay: float, power: np.ndarray, leaf: Any) -> np.ndarray:
    factor = np.asarray(decay**power, leaf.dtype)
    return factor.reshape(factor.shape + (1,) * (leaf.ndim - 1)) if factor.ndim else factor


def _flat(tree: Any) -> dict[str, Any]:
    return flatten_dict(tree, sep="/")


def _plain(path: str) -> str:
    """Return the path of the parameter to which one of low rank is added, or the path itself."""
    return re.sub(r"/lora_[ab]$", "", path.removeprefix(f"{LOW_RANK}/"))


def _beside_base(path: str) -> bool:
    return path.startswith(f"{LOW_RANK}/") or PARTS["head"](path)


def _is_of(part: str, path: str, number: np.ndarray, depth: int) -> np.ndarray:
    """Return which rows of a parameter are of a part, in the shape of its layer numbers."""
    layers = _layers(part)
    if layers is None:
        yes = PARTS[part](path) if part in PARTS else role_of(path) == part
        return np.full(number.shape, yes)
    first, last = layers
    if last > depth:
        raise UserError(f"{FIELD}: {part!r}: the encoder has layers 1 to {depth}")
    return (first <= number) & (number <= last) & (number.ndim > 0)


def _layers(part: str) -> tuple[int, int] | None:
    found = re.fullmatch(r"layers:([1-9]\d{0,6})(?:-([1-9]\d{0,6}))?", part)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        return None
    return int(found[1]), int(found[2] or found[1])


def _choices(name: str) -> str:
    if name.startswith("layer"):
        return "write layers:3 or layers:1-6"
    return nearest(name, (*PARTS, *ROLE_NAMES))
