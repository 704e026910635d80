"""The stream after each layer, to be perturbed, or its gradient's size to be read.

A stack looks for two collections among its variables; without them nothing is added to a program:

- ``perturbations``: added to each array of the stream's carry. At zero, the gradient of a loss with
  respect to them is the gradient with respect to the stream there.
- ``gradient_taps``: scalars that change nothing, and whose gradient is the Euclidean norm of the loss's
  gradient with respect to that array. No gradient is kept, so a thousand layers cost nothing. Reverse
  mode only.

Each holds ``at_start`` (the stream that the first layer reads) and ``after_layers`` (``after_layers_0``
and so on, one for each segment, as the parameters are named) with the layers along the first axis.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

PERTURBATIONS, TAPS = "perturbations", "gradient_taps"
COLLECTIONS = (PERTURBATIONS, TAPS)
START, AFTER = "at_start", "after_"
Named = dict[str, Any]


def stream_arrays(carry: Any) -> dict[str, jax.Array]:
    """Return the floating-point arrays of a carry by name: ``stream`` where there is but one."""
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/") or "stream": leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(carry)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    return {name.replace("/", "_"): leaf for name, leaf in found.items()}


def observers(stack: nn.Module, name: str, carry: Any, count: int | None = None) -> Named:
    """Return what a stack was given for one place, by collection; layers first where counted.

    A collection that an apply call may change is made, of zeros: so its shapes can be asked for.
    """
    if stack.is_initializing():
        return {}
    lead = () if count is None else (count,)
    found: Named = {}
    for collection in COLLECTIONS:
        if stack.has_variable(collection, name) or stack.is_mutable_collection(collection):
            zeros = {
                key: _zeros(collection, lead, leaf) for key, leaf in stream_arrays(carry).items()
            }
            found[collection] = stack.variable(collection, name, lambda z=zeros: z).value
    return found


def observe(carry: Any, given: Named) -> Any:
    """Return the carry perturbed and tapped as ``given``, of `observers` at one place, says."""
    if not given:
        return carry
    leaves, structure = jax.tree.flatten(carry)
    names = iter(stream_arrays(carry))
    seen = []
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            name = next(names)
            if PERTURBATIONS in given:
                leaf = leaf + given[PERTURBATIONS][name].astype(leaf.dtype)
            if TAPS in given:
                leaf = _tap(leaf, given[TAPS][name])
        seen.append(leaf)
    return jax.tree.unflatten(structure, seen)


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

    def made(*given: Any) -> Any:
        return model.apply(variables, *given, mutable=[collection], **kwargs)[1][collection]

    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(made, *args))


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
    ends = [key for key in collection if key != START]
    parts = [collection[key] for key in sorted(ends, key=_number)]
    return {
        name: jnp.concatenate([first[None], *(part[name] for part in parts)])
        for name, first in start.items()
    }


def _number(key: str) -> int:
    digits = key.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0


def _zeros(collection: str, lead: tuple[int, ...], leaf: jax.Array) -> jax.Array:
    if collection == TAPS:
        return jnp.zeros(lead, jnp.float32)
    return jnp.zeros((*lead, *leaf.shape), leaf.dtype)


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
