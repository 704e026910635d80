"""Hooks: the one way into a model's stack, to look at what flows there or to change it.

A hook is a collection among a model's variables, read at named points. Without it nothing is added to
a program. An apply call that may change a collection makes it, so its shapes can be asked for.

=================  =====================  ============================================================
collection         points                 what it does
=================  =====================  ============================================================
``writes``         opened, branch_out     what the embedding and each branch hand to the stream, in
                                          place of what they compute; noted where it may change. The
                                          gradient with respect to it goes through the stream alone,
                                          and no branch is run again
``kept_layers``    after                  a boolean; the carry passes a layer that is not kept
                                          unchanged, ``c_l = c_(l-1)``, whatever the stream, and so its
                                          norms on the stream. All numbers stay those of the whole
                                          depth. The first layer's values, where an arrangement mixes
                                          them into later layers, are still computed
``perturbations``  at_start, after        added to each array of the carry. At zero, the gradient of a
                                          loss with respect to it is that with respect to the stream
``gradient_taps``  at_start, after        scalars that change nothing, and whose gradient is the
                                          Euclidean norm of the loss's gradient with respect to that
                                          array. No gradient is kept, so a thousand layers cost
                                          nothing. Reverse mode only
=================  =====================  ============================================================

``opened`` and ``at_start`` (the carry that the first layer reads) stand in the stack, ``branch_out``
in each block, ``after`` in each layer: there values lie along a first axis of like layers, in the
module of the segment, as the parameters do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

WRITES, KEPT, PERTURBATIONS, TAPS = "writes", "kept_layers", "perturbations", "gradient_taps"
OPENED, BRANCH_OUT, START, AFTER = "opened", "branch_out", "at_start", "after"


@dataclass(frozen=True)
class Hook:
    """A row of `HOOKS`.

    Attributes:
      collection: its name.
      points: where it is read.
      first: what it holds where an apply call makes it, from the value at the point.
      change: ``(value, held, before) -> value``, with what it holds, and the carry before the layer.
      notes: whether an apply call that may change the collection stores the value in it.
    """

    collection: str
    points: tuple[str, ...]
    first: Callable[[Any], Any]
    change: Callable[[Any, Any, Any], Any]
    notes: bool = False


def hooked(module: nn.Module, point: str, value: Any, before: Any = None) -> Any:
    """Return the value at a point of ``module``, as the hooks that its variables hold change it.

    Args:
      module: whose compact call is running.
      point: its name.
      value: an array, or a stream's carry.
      before: the carry before the layer, at the point ``after``.
    """
    if module.is_initializing():
        return value
    for hook in HOOKS:
        may_change = module.is_mutable_collection(hook.collection)
        if point not in hook.points:
            continue
        if may_change and hook.notes:
            module.put_variable(hook.collection, point, value)
        elif may_change or module.has_variable(hook.collection, point):
            held = module.variable(hook.collection, point, hook.first, value).value
            value = hook.change(value, held, before)
    return value


def stream_arrays(carry: Any) -> dict[str, jax.Array]:
    """Return the floating-point arrays of a carry by name: ``stream`` where there is but one."""
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/") or "stream": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(carry)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    return {name.replace("/", "_"): leaf for name, leaf in found.items()}


def _each(change: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[Any, Any, Any], Any]:
    """Make a change of one array that of every floating-point array of a carry."""

    def changed(carry: Any, held: Any, before: Any) -> Any:
        leaves, structure = jax.tree.flatten(carry)
        names = iter(stream_arrays(carry))
        inexact = (jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves)
        pairs = zip(leaves, inexact, strict=True)
        return jax.tree.unflatten(
            structure, [change(leaf, held[next(names)]) if real else leaf for leaf, real in pairs]
        )

    return changed


def _replaced(value: jax.Array, held: jax.Array, before: Any) -> jax.Array:
    return held.astype(value.dtype)


def _passed_by(carry: Any, kept: jax.Array, before: Any) -> Any:
    return jax.tree.map(lambda new, old: jnp.where(kept, new, old), carry, before)


@jax.custom_vjp
def _tap(x: jax.Array, tap: jax.Array) -> jax.Array:
    return x


def _tap_forward(x: jax.Array, tap: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _tap_backward(_: None, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gradient, euclidean_norm(gradient)


_tap.defvjp(_tap_forward, _tap_backward)


def euclidean_norm(x: jax.Array, axis: Any = None) -> jax.Array:
    """``|x|``, safe where squares would overflow or vanish; float32 at least."""
    wide = jnp.abs(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
    peak = jnp.max(wide, axis=axis, keepdims=True, initial=0.0)
    safe = jnp.where(peak > 0, peak, 1.0)
    return jnp.squeeze(peak, axis) * jnp.sqrt(jnp.sum((wide / safe) ** 2, axis=axis))


HOOKS = (
    Hook(WRITES, (OPENED, BRANCH_OUT), lambda value: value, _replaced, notes=True),
    Hook(KEPT, (AFTER,), lambda carry: jnp.ones((), bool), _passed_by),
    Hook(
        PERTURBATIONS,
        (START, AFTER),
        lambda carry: jax.tree.map(jnp.zeros_like, stream_arrays(carry)),
        _each(lambda x, added: x + added.astype(x.dtype)),
    ),
    Hook(
        TAPS,
        (START, AFTER),
        lambda carry: dict.fromkeys(stream_arrays(carry), jnp.zeros((), jnp.float32)),
        _each(_tap),
    ),
)
# Of `resnorm_jax.modules.observe`, whose points are all modules:
BAD_ROWS, ROW_TAPS = "bad_rows", "row_taps"
# What is added up of norms' inputs and outputs: see `resnorm_jax.lab.surgery.pointwise`.
NORM_SUMS = "norm_sums"
COLLECTIONS = (*(hook.collection for hook in HOOKS), BAD_ROWS, ROW_TAPS, NORM_SUMS)


# --- What is asked of a model through them ---


def _made(
    model: nn.Module, variables: Mapping[str, Any], collection: str, args: Any, kwargs: Any
) -> Any:
    """Return the shapes of a collection, found without running the model."""

    def made(*given: Any) -> Any:
        return model.apply(variables, *given, mutable=[collection], **kwargs)[1][collection]

    return jax.eval_shape(made, *args)


def zero_observers(
    model: nn.Module, variables: Mapping[str, Any], *args: Any, collection: str, **kwargs: Any
) -> Any:
    """Return a collection of zeros for a model, its shapes found without running it.

    Args:
      model: any module with a stack somewhere inside, such as `SequenceClassifier`.
      variables: of the model.
      *args: of the call.
      collection: ``perturbations`` or ``gradient_taps``.
      **kwargs: of the call.
    """
    shapes = _made(model, variables, collection, args, kwargs)
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


def stream_gradients(
    model: nn.Module,
    variables: Mapping[str, Any],
    loss: Callable[[Any], jax.Array],
    *args: Any,
    norms: bool = False,
    **kwargs: Any,
) -> dict[str, jax.Array]:
    """Return the gradient of a loss with respect to every array of the stream, at every depth.

    Args:
      model: with one stack inside.
      variables: of the model.
      loss: of what the model returns.
      *args: of the model's call.
      norms: return the gradients' Euclidean norms only, which costs no memory.
      **kwargs: of the model's call.

    Returns:
      Array of the carry by name (``stream`` where it is but one) to ``[N + 1, *shape]``, or ``[N + 1]``
      with ``norms``: row 0 is the stream that the first layer reads, row l that after layer l.
    """
    collection = TAPS if norms else PERTURBATIONS
    zeros = zero_observers(model, variables, *args, collection=collection, **kwargs)

    def of(zeros: Any) -> jax.Array:
        return loss(model.apply({**variables, collection: zeros}, *args, **kwargs))

    return by_depth(jax.grad(of)(zeros))


def by_depth(collection: Any) -> dict[str, jax.Array]:
    """Join a collection's segments along depth: array by name to ``[N + 1, ...]``."""
    while START not in collection:
        (collection,) = collection.values()
    start = collection[START]
    parts = [collection[name][AFTER] for name in sorted(set(collection) - {START}, key=_number)]
    return {
        name: jnp.concatenate([first[None], *(part[name] for part in parts)])
        for name, first in start.items()
    }


def layer_switch(
    model: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Callable[[Any], dict[str, Any]]:
    """Return a function from ``keep``, ``[N]`` booleans, to the variables of a model so cut.

    Args:
      model: with one stack inside, such as `SequenceClassifier`; it is not run.
      variables: of the model.
      *args: of the model's call.
      **kwargs: of the call.
    """
    shapes = _made(model, variables, KEPT, args, kwargs)
    found, structure = jax.tree_util.tree_flatten_with_path(shapes)
    order = sorted(range(len(found)), key=lambda i: _number(found[i][0][-2].key))
    ends = np.cumsum([found[i][1].shape[0] for i in order])

    def cut(keep: Any) -> dict[str, Any]:
        flags = np.asarray(keep, bool)
        if flags.shape != (ends[-1],):
            raise ValueError(f"keep has shape {flags.shape}, the model {ends[-1]} layers")
        parts = dict(zip(order, np.split(flags, ends[:-1]), strict=True))
        leaves = [parts[i] for i in range(len(found))]
        return {**variables, KEPT: jax.tree_util.tree_unflatten(structure, leaves)}

    return cut


def _number(segment: str) -> int:
    digits = segment.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0
