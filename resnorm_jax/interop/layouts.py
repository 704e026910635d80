"""How an array of another library lies in memory, beside how it lies here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Leaf:
    """One array of a module, in both libraries.

    Attributes:
      theirs: its name in their module; "" where their name is that of the array itself.
      read: their array, and our shape, to our array.
      write: our array to theirs.
      before: its name in old files.
    """

    theirs: str
    read: Callable[[np.ndarray, Shape], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]
    before: str = ""


# Our leaf's name to what it is in their module.
Layout = Mapping[str, Leaf]


def _same(theirs: str, before: str = "") -> Leaf:
    return Leaf(theirs, lambda a, shape: a.reshape(shape), lambda a: a, before)


def _flat(theirs: str) -> Leaf:
    return Leaf(theirs, lambda a, shape: a.reshape(shape), lambda a: a.reshape(-1))


def _kernel(inputs: int) -> Leaf:
    """A matrix ``[out, in]`` there; here ``[in, out]``, the first ``inputs`` axes of which are in."""

    def write(a: np.ndarray) -> np.ndarray:
        return a.reshape(int(np.prod(a.shape[:inputs])), -1).T

    return Leaf("weight", lambda a, shape: a.T.reshape(shape), write)


def _halves(a: np.ndarray) -> np.ndarray:
    """``[..., K]``: the features of even number, then those of odd number."""
    return np.concatenate([a[..., ::2], a[..., 1::2]], axis=-1)


def _pairs(a: np.ndarray) -> np.ndarray:
    """Undo `_halves`."""
    first, second = np.split(a, 2, axis=-1)
    return np.stack([first, second], axis=-1).reshape(a.shape)


def _sorted(leaf: Leaf) -> Leaf:
    return Leaf(
        leaf.theirs,
        lambda a, shape: _halves(leaf.read(a, shape)),
        lambda a: leaf.write(_pairs(a)),
    )


# A linear map; here the outputs may be several axes, such as heads and their width.
LINEAR: Layout = {"kernel": _kernel(1), "bias": _flat("bias")}
# A linear map to heads, whose rotary pairs are features 2 i and 2 i + 1 there; here i and i + K/2.
PAIRED: Layout = {name: _sorted(leaf) for name, leaf in LINEAR.items()}
# A linear map of joined heads; here from two axes.
JOINED: Layout = {"kernel": _kernel(2), "bias": _flat("bias")}
# A linear map that is ``[in, out]`` there too, as GPT-2's.
CONV1D: Layout = {
    "kernel": Leaf("weight", lambda a, s: a.reshape(s), lambda a: a.reshape(a.shape[0], -1)),
    "bias": _flat("bias"),
}
NORM: Layout = {"scale": _same("weight", "gamma"), "bias": _same("bias", "beta")}
EMBEDDING: Layout = {"embedding": _same("weight")}
# A convolution over images: ``[out, in, H, W]`` there, ``[H, W, in, out]`` here.
CONVOLUTION: Layout = {
    "kernel": Leaf(
        "weight", lambda a, shape: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)
    ),
    "bias": _same("bias"),
}


def array(leaf: str, ones: int = 0) -> Layout:
    """Return the layout of an array that is no module's, with some axes of length 1 before it there.

    Args:
      leaf: our name of it.
      ones: how many.
    """
    return {
        leaf: Leaf(
            "", lambda a, shape: a.reshape(shape), lambda a: a.reshape((1,) * ones + a.shape)
        )
    }


@dataclass(frozen=True)
class Rule:
    """Where a module of theirs stands here.

    Attributes:
      theirs: its name; ``{}`` is the number of the layer, counted from 0 as theirs are.
      ours: path of ours, from the classifier on; of a rule of layers from the layer on. Several where
        theirs is one map whose outputs are those of ours, one after the other.
      layout: of its arrays.
      also: other names that it has had in their files.
      outside: whether it stands outside of their body, without its prefix.
    """

    theirs: str
    ours: str | tuple[str, ...]
    layout: Layout
    also: tuple[str, ...] = ()
    outside: bool = False

    @property
    def of_layers(self) -> bool:
        """Whether each layer has one."""
        return "{}" in self.theirs

    @property
    def paths(self) -> tuple[str, ...]:
        """Our paths."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours
