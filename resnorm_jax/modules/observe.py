"""Where a pass stops being finite: every module's input and output, forward and backward, by row.

An interceptor, so that no module knows of it. Forward, each module notes which rows of what it is
given and of what it returns are not finite. Backward, scalars that change nothing (taps, one for each
row) have as gradient how many of the gradients that pass them are not finite. Both are collections
that a stack scans over, so what is found has its layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.modules.hooks import BAD_ROWS, ROW_TAPS

Path = tuple[str, ...]
# In the collections, where submodules stand beside them: none is called so.
NAMES = {"in": "rows_in", "out": "rows_out"}


@dataclass(frozen=True)
class Point:
    """The input or the output of a module.

    Attributes:
      path: of the module among the model's, empty for the model itself.
      side: ``"in"`` or ``"out"``.
      layer: counted from 1 through the stack; None outside one.
      index: which of the like layers of its segment, from 0.
    """

    path: Path
    side: str
    layer: int | None = None
    index: int | None = None


class Watch:
    """The interceptor: for `flax.linen.intercept_methods`.

    Args:
      rows: of the batch; the first axis of arrays that have one for each.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.order: dict[tuple[Path, str], None] = {}  # as traced

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        """Run a method of a module, and look at what goes in and comes out."""
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        module = context.module
        args, kwargs = self._seen(module, "in", (args, kwargs))
        return self._seen(module, "out", call(*args, **kwargs))

    def _seen(self, module: nn.Module, side: str, values: Any) -> Any:
        leaves, structure = jax.tree.flatten(values)
        places = [i for i, leaf in enumerate(leaves) if _is_real(leaf)]
        if not places:
            return values
        self.order[tuple(module.path), side] = None
        bad = jnp.stack([bad_rows(leaves[i], self.rows) for i in places]).any(0)
        side = NAMES[side]
        module.sow(BAD_ROWS, side, bad, reduce_fn=jnp.logical_or, init_fn=lambda: jnp.array(False))
        if module.is_mutable_collection(ROW_TAPS) and not module.has_variable(ROW_TAPS, side):
            module.put_variable(ROW_TAPS, side, jnp.zeros(self.rows, jnp.float32))
        if module.has_variable(ROW_TAPS, side):
            tap: Any = module.get_variable(ROW_TAPS, side)
            for i in places:
                leaves[i] = _tap(self.rows, leaves[i], tap)
        return jax.tree.unflatten(structure, leaves)


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def bad_rows(x: jax.Array, rows: int) -> jax.Array:
    """Return which rows of ``x`` are not finite, ``[rows]``; all if it has no axis of rows."""
    bad = ~jnp.isfinite(x)
    if x.ndim and x.shape[0] == rows:
        return bad.reshape(rows, -1).any(1)
    return jnp.broadcast_to(bad.any(), (rows,))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tap(rows: int, x: jax.Array, tap: jax.Array) -> jax.Array:
    return x


def _tap_forward(rows: int, x: jax.Array, tap: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _tap_backward(rows: int, _: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gradient, bad_rows(gradient, rows).astype(jnp.float32)


_tap.defvjp(_tap_forward, _tap_backward)


def watched(apply: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    """Return an ``apply`` whose parameters are ``{"params", "taps"}``, and which returns flags too.

    It stands in for a model's in `resnorm_jax.training.model_state.gradient`: logits become the pair of
    logits and flags, and the gradient has a part for the taps.
    """

    def run(variables: Mapping[str, Any], *args: Any, mutable: Any = (), **kwargs: Any) -> Any:
        learned = variables["params"]
        given = {**variables, "params": learned["params"], ROW_TAPS: learned["taps"]}
        with nn.intercept_methods(watch):
            out, new = apply(given, *args, mutable=[*mutable, BAD_ROWS], **kwargs)
        new = dict(new)
        flags = new.pop(BAD_ROWS, {})
        return ((out, flags), new) if mutable else (out, flags)

    return run


def zero_taps(apply: Callable[..., Any], watch: Watch, *args: Any, **kwargs: Any) -> Any:
    """Return the taps of a call, zeros; the model is traced, not run."""

    def made(*given: Any) -> Any:
        with nn.intercept_methods(watch):
            return apply(*given, mutable=[ROW_TAPS], **kwargs)[1][ROW_TAPS]

    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(made, *args))


def points(watch: Watch, found: Any) -> list[tuple[Point, np.ndarray]]:
    """Return the points of a pass in the order of the forward pass, each with its rows, ``[rows]``.

    Args:
      watch: that saw the pass.
      found: of it: the flags, or the gradient of the taps; ``[rows]``, or ``[N, rows]`` in a stack.
    """
    out: list[tuple[Point, np.ndarray]] = []
    segment: list[tuple[Path, str, np.ndarray]] = []
    done = 0

    def close() -> None:
        nonlocal done
        count = len(segment[0][2]) if segment else 0
        for i in range(count):
            out.extend((Point(p, s, done + i + 1, i), v[i]) for p, s, v in segment)
        done += count
        segment.clear()

    previous: Path = ()
    for path, side in watch.order:
        value = _at(found, (*path, NAMES[side]))
        if value is None:
            continue
        if value.ndim == 1 or (segment and _segment(path) != previous):
            close()
        if value.ndim == 1:
            out.append((Point(path, side), value))
        else:
            segment.append((path, side, value))
            previous = _segment(path)
    close()
    return out


def _segment(path: Path) -> Path:
    """The path of the stacked layers in which a module stands."""
    ends = [i for i, name in enumerate(path) if name.split("_")[0] == "layers"]
    return path[: ends[0] + 1] if ends else path[:1]


def _at(tree: Any, path: Path) -> np.ndarray | None:
    for name in path:
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return np.asarray(tree, bool)
