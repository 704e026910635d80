"""A checkpoint's arrays as a model's parameters, and back, by the rules of a family."""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.interop.family import Family
from resnorm_jax.interop.layouts import Leaf, Rule
from resnorm_jax.planning import Plan

Path = tuple[str, ...]
MOST_TOLD = 5  # names in a message


@dataclass(frozen=True)
class Piece:
    """One array of theirs, or a part of it, and where it stands here.

    Attributes:
      path: of our leaf.
      layer: its index along the leaf's first axis; None for all of the leaf.
      names: what theirs may be called, the usual name first.
      leaf: how it lies.
      shape: ours, without the axis of layers.
      parts: our leaves that theirs holds, one after the other.
    """

    path: Path
    layer: int | None
    names: tuple[str, ...]
    leaf: Leaf
    shape: tuple[int, ...]
    parts: tuple[Path, ...]


@dataclass(frozen=True)
class Loaded:
    """What came out of a checkpoint.

    Attributes:
      params: the parameters; those of ``fresh`` are the ones that were given.
      fresh: paths of those that the checkpoint does not have.
      unread: names in the checkpoint that no classifier needs.
    """

    params: Any
    fresh: tuple[str, ...]
    unread: tuple[str, ...]


def flatten(params: Any) -> dict[Path, Any]:
    """Return path to leaf, of nested dictionaries."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {tuple(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def unflatten(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Return nested dictionaries, of path to leaf."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        inside = tree
        for name in path[:-1]:
            inside = inside.setdefault(name, {})
        inside[path[-1]] = leaf
    return tree


def pieces(family: Family, plan: Plan, shapes: Mapping[Path, tuple[int, ...]]) -> list[Piece]:
    """Return where each of our leaves stands there; leaves without a rule are left out.

    Args:
      family: whose rules hold.
      plan: of the encoder, for which layer stands where.
      shapes: of our leaves, by path.
    """
    first = 0
    starts: dict[str, int] = {}
    for segment in plan.segments:
        starts[segment.name] = first
        first += segment.sets
    return [
        piece for path, shape in shapes.items() for piece in _of_leaf(family, starts, path, shape)
    ]


def _of_leaf(
    family: Family, starts: Mapping[str, int], path: Path, shape: tuple[int, ...]
) -> Iterator[Piece]:
    of_layers = path[0] == "encoder" and path[1] in starts
    inside = path[2:-1] if of_layers else path[:-1]
    found = _rule(family.rules, "/".join(inside), path[-1], of_layers)
    if found is None:
        return
    rule, leaf = found
    before = path[:2] if of_layers else ()
    parts = tuple((*before, *filter(None, p.split("/")), path[-1]) for p in rule.paths)
    leaves = [f".{name}" for name in (leaf.theirs, leaf.before) if name] or [""]
    names = [module + name for name in leaves for module in (rule.theirs, *rule.also)]
    usual, other = ("", family.prefix) if rule.outside else (family.prefix, "")
    full = tuple(p + n for n in names for p in (usual, other))
    if not of_layers:
        yield Piece(path, None, full, leaf, shape, parts)
        return
    for index in range(shape[0]):
        numbered = tuple(name.replace("{}", str(starts[path[1]] + index)) for name in full)
        yield Piece(path, index, numbered, leaf, shape[1:], parts)


def _rule(
    rules: tuple[Rule, ...], module: str, leaf: str, of_layers: bool
) -> tuple[Rule, Leaf] | None:
    for rule in rules:
        if rule.of_layers == of_layers and module in rule.paths and leaf in rule.layout:
            return rule, rule.layout[leaf]
    return None


def _rows(shape: tuple[int, ...], rank: int) -> int:
    """Return how many outputs a leaf has, of a map of a matrix (rank 2) or its bias."""
    return int(np.prod(shape[1:] if rank == 2 else shape))


def load(
    family: Family,
    plan: Plan,
    tensors: Mapping[str, np.ndarray],
    like: Any,
    known: Set[str] = frozenset(),
) -> Loaded:
    """Return a model's parameters with a checkpoint's values.

    Args:
      family: of the checkpoint.
      plan: of the model's encoder.
      tensors: the checkpoint's arrays by name.
      like: the model's parameters, whose shapes and dtypes are kept; those that the checkpoint may
        lack (`Family.heads`) keep their values too.
      known: names of arrays that need no place here.

    Raises:
      UserError: an array is missing, left over or of another shape; both sides are listed.
    """
    leaves = flatten(like)
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    out: dict[Path, np.ndarray] = {}
    used = set(known)
    missing: list[str] = []
    absent: set[Path] = set()
    ruled: set[Path] = set()
    for piece in pieces(family, plan, shapes):
        ruled.add(piece.path)
        name = next((n for n in piece.names if n in tensors), None)
        if name is None:
            absent.add(piece.path)
            missing.append(piece.names[0])
            continue
        used.add(name)
        value = _part(piece, name, tensors[name], shapes)
        if value is None:
            absent.add(piece.path)
        elif piece.layer is None:
            out[piece.path] = value
        else:
            whole = out.setdefault(piece.path, np.empty(shapes[piece.path], np.float32))
            whole[piece.layer] = value
    absent |= set(leaves) - ruled
    fresh = {path for path in absent if path[0] in family.heads}
    fresh |= {p for p in leaves if any(p[:-1] == f[:-1] for f in fresh)}  # a map with its bias
    lacking = sorted("/".join(path) for path in absent - fresh)
    patterns = re.compile("|".join(f"(?:{p})" for p in family.unread) or "(?!)")
    heads = tuple(n for p in pieces(family, plan, shapes) if p.path in fresh for n in p.names)
    left = [name for name in tensors if name not in used]
    unknown = sorted(
        n for n in left
        if n not in heads and not patterns.fullmatch(n.removeprefix(family.prefix))
        and not _of_head(family, n)
    )  # fmt: skip
    if lacking or unknown:
        raise UserError(_both_sides(family, lacking, missing, unknown))
    dtypes = {path: leaf.dtype for path, leaf in leaves.items()}
    values = {
        path: leaves[path] if path in fresh else np.asarray(out[path], dtypes[path])
        for path in leaves
    }
    return Loaded(unflatten(values), tuple(sorted("/".join(p) for p in fresh)), tuple(sorted(left)))


def _of_head(family: Family, name: str) -> bool:
    """Whether a name is of the family's head, which the model may not have."""
    return any(
        name.removeprefix(family.prefix).startswith(f"{rule.theirs}.")
        for rule in family.rules
        if rule.paths[0].split("/")[0] in family.heads
    )


def _part(
    piece: Piece, name: str, value: np.ndarray, shapes: Mapping[Path, tuple[int, ...]]
) -> np.ndarray | None:
    """Return a piece of their array, as ours; None for a head of another number of classes."""
    value = np.asarray(value, np.float32)
    if len(piece.parts) > 1:
        own = [shapes[p][piece.layer is not None :] for p in piece.parts]
        rows = [_rows(shape, value.ndim) for shape in own]
        at = piece.parts.index(piece.path)
        start = sum(rows[:at])
        if sum(rows) != value.shape[0]:
            raise UserError(f"{name}: {value.shape[0]} rows; the model has {sum(rows)}")
        value = value[start : start + rows[at]]
    if piece.leaf.write(np.empty(piece.shape, bool)).shape != value.shape:
        if piece.path[0] == "head":
            return None
        raise UserError(
            f"{name}: shape {value.shape}; config.json makes {'/'.join(piece.path)} {piece.shape}: "
            "the weights and config.json do not belong together"
        )
    return piece.leaf.read(value, piece.shape)


def _both_sides(family: Family, lacking: list, missing: list, unknown: list) -> str:
    def told(names: list[str]) -> str:
        more = f" and {len(names) - MOST_TOLD} more" if len(names) > MOST_TOLD else ""
        return ", ".join(names[:MOST_TOLD]) + more or "nothing"

    return (
        f"the weights are not those of a {family.name!r} model: the model needs {told(lacking)} "
        f"(in the file {told(missing)}), which the file lacks; the file has {told(unknown)}, which the "
        "model does not know"
    )


def unload(family: Family, plan: Plan, params: Any) -> dict[str, np.ndarray]:
    """Return a model's parameters as the family's checkpoint holds them.

    Raises:
      UserError: naming parameters that the family has no place for.
    """
    leaves = flatten(params)
    shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}
    parts: dict[str, dict[int, np.ndarray]] = {}
    ruled = set()
    for piece in pieces(family, plan, shapes):
        ruled.add(piece.path)
        value = np.asarray(leaves[piece.path])
        value = value if piece.layer is None else value[piece.layer]
        at = piece.parts.index(piece.path)
        parts.setdefault(piece.names[0], {})[at] = piece.leaf.write(value)
    homeless = sorted("/".join(path) for path in set(leaves) - ruled)
    if homeless:
        raise UserError(
            f"a {family.name!r} model has no place for {', '.join(homeless[:MOST_TOLD])}"
        )
    return {
        name: np.concatenate([found[n] for n in sorted(found)]) if len(found) > 1 else found[0]
        for name, found in parts.items()
    }
