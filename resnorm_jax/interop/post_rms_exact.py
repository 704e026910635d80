"""A Post-LN Transformer turned into one with RMS norms that computes the same: for wider layers.

What `resnorm_jax.interop.post_rms` cannot move is the map of the skip connection: between two layer
norms the stream ``x = g n + b`` loses its mean, ``n -> C (g n)``, and a plain skip connection is the
identity. Two things make it exact:

- An RMS norm without scale does not see a rotation. So each stream may have axes of its own, which the
  projections that read and write it undo. The map ``C g``, on vectors of mean 0, is ``U S V^T`` (its
  singular values): if the norm before it works in the axes U, with scale S, and the norm after it in
  the axes V, then between them the map is the identity. This serves one skip connection in two: the
  one around the attention.
- A feed-forward layer computes any linear map of its input exactly beside what it computes already:
  ``act(a) - act(-a) = a`` for ReLU, GELU and SiLU. With 2 (D - 1) more hidden units it adds to the
  stream what makes of the identity the map that is needed. This serves the other.

So every layer becomes wider by 2 (D - 1) hidden units, and nothing else changes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnorm_jax.interop.post_rms import NORM, checked_layers

Tree = Mapping[str, Any]
MOST = 1e4  # factor in what reads a stream, beyond which float32 would show
Array = np.ndarray


@dataclass(frozen=True)
class Axes:
    """A norm in axes of its own, for width D; matrices act on row vectors from the right.

    Attributes:
      write: ``[D, D]``, what is written to the stream before the norm; its last column is 0.
      scale: ``[D]`` of the RMS norm.
      read: ``[D, D]``: the layer norm's output is ``y @ read + bias``, y the RMS norm's.
      bias: ``[D]``.
    """

    write: Array
    scale: Array
    read: Array
    bias: Array


def wide_post_rms_params(
    params: Tree, activation: Callable[[Any], Any]
) -> tuple[dict[str, Any], Array, Axes]:
    """Turn a Post-LN encoder's parameters into those of a wider one with RMS norms that is equal.

    ::

        encoder_ln(x) = encoder_rms(x @ into) @ last.read + last.bias

    Args:
      params: of a Post-LN `TransformerEncoder` with an ``embedding_norm``, whose norms are layer norms
        with a scale and maybe a bias, and whose feed-forward layers have no gate.
      activation: of those layers, with ``act(a) - act(-a) = a``.

    Returns:
      Parameters of the same encoder with ``norm="rms"``, the same epsilon, ``use_bias=True`` and
      ``mlp_width + 2 (D - 1)``; ``into [D, D]``; and the last norm's axes. Arrays are float32.

    Raises:
      ValueError: if the parameters, or the activation, are not such.
    """
    layers = checked_layers(params)
    if "embedding_norm" not in params:
        raise ValueError("the encoder begins without a norm: its input keeps a mean; it has no "
                         "embedding_norm")  # fmt: skip
    if set(layers["feed_forward"]["branch"]) != {"fc1", "fc2"}:
        raise ValueError("the feed-forward layers are not fc1 and fc2 alone")
    at = np.linspace(-9, 9, 37, dtype=np.float32)
    if np.abs(np.asarray(activation(at) - activation(-at)) - at).max() > 1e-5:
        raise ValueError("the activation is not one with act(a) - act(-a) = a")
    before, after = _turned(params["embedding_norm"])
    into, found = before.write, []
    depth = len(layers["attention"][NORM]["scale"])
    out: dict[str, Any] = {"embedding_norm": {"scale": before.scale}}
    for index in range(depth):
        layer = _at(layers, index)
        attention = _fixed(layer["attention"][NORM], after)
        ahead, after = _turned(layer["feed_forward"][NORM])
        found.append({
            "attention": {
                NORM: {"scale": attention.scale},
                "branch": {
                    name: _write(part, before.bias, attention.write) if name == "out"
                    else _read(part, before)
                    for name, part in layer["attention"]["branch"].items()
                },
            },
            "feed_forward": {
                NORM: {"scale": ahead.scale},
                "branch": _widened(layer["feed_forward"]["branch"], attention, ahead),
            },
        })  # fmt: skip
        before = ahead
    out["layers"] = _stacked(found)
    return _float32(out), into, before


def _turned(norm: Tree) -> tuple[Axes, Array]:
    """Return a norm in the axes from which the skip connection is the identity, and those to which."""
    scale, bias = _norm(norm)
    basis = _centred_basis(len(scale))
    left, values, right = np.linalg.svd(basis.T @ (scale[:, None] * basis))
    write = _padded(basis @ left)
    sizes = np.append(values, 1.0)
    rows = write.T * scale
    # A direction in which the scale is 0 is read by nobody; one whose mean alone is left is lost.
    gone = sizes[:, None] <= 1e-12 * values.max()
    read = np.where(gone, 0, rows / np.where(gone, 1, sizes[:, None]))
    if np.abs(rows * gone).max() > 1e-9 * values.max() or np.abs(read).max() > MOST:
        raise ValueError(
            "a norm's scale leaves of some direction nothing but a mean, which is lost"
        )
    return Axes(write, sizes, read, bias), _padded(basis @ right.T)


def _fixed(norm: Tree, write: Array) -> Axes:
    """Return a norm in axes that are given, without a scale."""
    scale, bias = _norm(norm)
    return Axes(write, np.ones(len(scale)), write.T * scale, bias)


def _widened(branch: Tree, before: Axes, ahead: Axes) -> dict[str, Any]:
    """Return fc1 and fc2 with the hidden units that make the skip connection's map."""
    width = len(before.bias)
    fc1, fc2 = _read(branch["fc1"], before), _write(branch["fc2"], before.bias, ahead.write)
    # The last axis of both streams is always 0.
    more = (before.read @ ahead.write - np.eye(width))[:, :-1]
    back = np.eye(width)[:-1]
    return {
        "fc1": {
            "kernel": np.concatenate([fc1["kernel"], more, -more], 1),
            "bias": np.append(fc1["bias"], np.zeros(2 * (width - 1))),
        },
        "fc2": {"kernel": np.concatenate([fc2["kernel"], back, -back]), "bias": fc2["bias"]},
    }


def _read(part: Tree, axes: Axes) -> dict[str, Array]:
    kernel = np.float64(part["kernel"])
    bias = np.float64(part.get("bias", 0.0)) + np.tensordot(axes.bias, kernel, 1)
    return {"kernel": np.tensordot(axes.read, kernel, 1), "bias": bias}


def _write(part: Tree, skipped: Array, write: Array) -> dict[str, Array]:
    """Fold axes into a projection, with the bias that the skip connection would have brought."""
    bias = np.float64(part.get("bias", 0.0)) + skipped
    return {"kernel": np.float64(part["kernel"]) @ write, "bias": bias @ write}


def _norm(norm: Tree) -> tuple[Array, Array]:
    scale = np.asarray(norm["scale"], np.float64)
    return scale, np.asarray(norm.get("bias", np.zeros_like(scale)), np.float64)


def _centred_basis(width: int) -> Array:
    """Return an orthonormal basis ``[D, D - 1]`` of the vectors of mean 0."""
    centre = np.eye(width) - 1 / width
    return np.linalg.svd(centre)[0][:, :-1]


def _padded(matrix: Array) -> Array:
    return np.pad(matrix, ((0, 0), (0, 1)))


def _at(tree: Any, index: int) -> Any:
    if isinstance(tree, Mapping):
        return {name: _at(part, index) for name, part in tree.items()}
    return np.asarray(tree)[index]


def _stacked(trees: list[Any]) -> Any:
    if isinstance(trees[0], Mapping):
        return {name: _stacked([tree[name] for tree in trees]) for name in trees[0]}
    return np.stack(trees)


def _float32(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _float32(part) for name, part in tree.items()}
    return np.float32(tree)
