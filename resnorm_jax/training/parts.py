"""Where a parameter stands: its layer, and the parts of a model by name."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from resnorm_jax.errors import UserError, nearest
from resnorm_jax.planning.roles import ROLE_NAMES, role_of

LOW_RANK = "lora"  # the subtree that `low_rank` adds; inside it paths are as outside
FIELD = "config.optimizer.frozen"

_STACK = re.compile(r"(^|/)(layers(_\d+)?)/")
_FIRST = re.compile(r"^(front_end|positions|cls|distillation|projection)(/|$)|(^|/)embedding_norm/")

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
    leaves = flat(params)
    stacks = {path: m[2] for path in leaves if (m := _STACK.search(f"{plain(path)}/"))}
    sizes = {name: leaves[path].shape[0] for path, name in stacks.items()}
    starts, depth = {}, 0
    for name in sorted(sizes, key=lambda n: int(n.partition("_")[2] or 0)):
        starts[name], depth = depth, depth + sizes[name]
    return {
        path: np.arange(sizes[stacks[path]]) + starts[stacks[path]] + 1
        if path in stacks
        else np.array(0 if _FIRST.search(plain(path)) else depth + 1)
        for path in leaves
    }


def depth_of(numbers: Mapping[str, np.ndarray]) -> int:
    """Return how many layers there are."""
    return max((int(n.max()) for n in numbers.values() if n.ndim), default=0)


def flat(tree: Any) -> dict[str, Any]:
    """Return leaves by path, parts joined by ``/``."""
    return flatten_dict(tree, sep="/")


def plain(path: str) -> str:
    """Return the path of the parameter to which one of low rank is added, or the path itself."""
    return re.sub(r"/lora_[ab]$", "", path.removeprefix(f"{LOW_RANK}/"))


def beside_base(path: str) -> bool:
    """Whether a parameter is trained beside a frozen base: of low rank, or of the head."""
    return path.startswith(f"{LOW_RANK}/") or PARTS["head"](path)


def is_of(part: str, path: str, number: np.ndarray, depth: int) -> np.ndarray:
    """Return which rows of a parameter are of a part, in the shape of its layer numbers."""
    layers = layers_of(part)
    if layers is None:
        yes = PARTS[part](path) if part in PARTS else role_of(path) == part
        return np.full(number.shape, yes)
    first, last = layers
    if last > depth:
        raise UserError(
            f"{FIELD}: {part!r}: the encoder has layers 1 to {depth}; "
            "those that share parameters (model.layer_groups) count as one"
        )
    return (first <= number) & (number <= last) & (number.ndim > 0)


def layers_of(part: str) -> tuple[int, int] | None:
    """Return the first and last layer of ``layers:A-B``, or None for another text."""
    found = re.fullmatch(r"layers:([1-9]\d{0,6})(?:-([1-9]\d{0,6}))?", part)
    if found is None or int(found[2] or found[1]) < int(found[1]):
        return None
    return int(found[1]), int(found[2] or found[1])


def choices(name: str) -> str:
    """Return a hint at the part that a person may have meant."""
    if name.startswith("layer"):
        return "write layers:3 or layers:1-6"
    return nearest(name, (*PARTS, *ROLE_NAMES))
