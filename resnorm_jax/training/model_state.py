"""What a model keeps beside its parameters, and how one forward and backward pass changes it.

A trainer carries a `Kept` from step to step and looks inside nowhere else.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Params = Any
Kept = dict[str, Any]
Variables = dict[str, Any]

# Running statistics, which training updates:
STATISTICS = "batch_stats"
# Scalars named "step", float32, set to the number of updates done, for what changes over training:
SCHEDULE = "schedule"
# Flax's name for variables whose gradient, of the sum of the losses, is their next value:
OVERWRITE = "_overwrite_with_gradient"


def split(variables: Mapping[str, Any]) -> tuple[Params, Kept]:
    """Return the parameters, and what is kept beside them.

    Raises:
      ValueError: if the model has a collection that the trainer does not know.
    """
    kept = {name: tree for name, tree in variables.items() if name != "params"}
    unknown = sorted(set(kept) - {STATISTICS, SCHEDULE, OVERWRITE})
    if unknown:
        raise ValueError(
            f"the model has the collection {unknown[0]!r}; the trainer knows params, {STATISTICS}, "
            f"{SCHEDULE} and {OVERWRITE}"
        )
    return variables["params"], kept


def at_step(kept: Kept, step: jax.Array | int) -> Kept:
    """Return what is kept with every scalar of `SCHEDULE` set to the number of updates done."""
    if SCHEDULE not in kept:
        return kept
    told = jax.tree.map(lambda leaf: jnp.full_like(leaf, step), kept[SCHEDULE])
    return {**kept, SCHEDULE: told}


def gradient(
    apply: Callable[..., Any],
    loss: Callable[[jax.Array], tuple[jax.Array, Any]],
    params: Params,
    kept: Kept,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
) -> tuple[Params, Any, Kept]:
    """Run a model forward and backward, in training.

    Args:
      apply: the model's.
      loss: logits ``[B, K]`` to the sum of the losses, and what else is to be told of them.
      params: to which the gradient is taken.
      kept: before.
      batch: ``x``, ``weight`` and perhaps ``mask`` or, read where there is none, ``lengths``.
      key: of dropout.

    Returns:
      Gradient; what else ``loss`` told; what is kept after.
    """
    overwritten = {OVERWRITE: kept[OVERWRITE]} if OVERWRITE in kept else {}

    def total(learned: Variables) -> tuple[jax.Array, Any]:
        logits, new = _forward(apply, {**kept, **learned}, batch, key)
        value, told = loss(logits)
        return value, (told, new)

    grads, (told, new) = jax.grad(total, has_aux=True)({"params": params, **overwritten})
    return grads.pop("params"), told, {**kept, **new, **grads}


def _forward(apply, variables: Variables, batch, key) -> tuple[jax.Array, Kept]:
    """Return logits, and the running statistics after them, if any."""
    options: dict[str, Any] = {"deterministic": False, "rngs": {"dropout": key}}
    valid = validity(batch)
    if STATISTICS not in variables:
        return apply(variables, batch["x"], **valid, **options), {}
    real = batch["weight"] > 0  # rows that fill a batch must not enter its statistics
    if "lengths" in valid:
        valid = {"lengths": jnp.where(real, valid["lengths"], 0)}
    else:
        mask = valid.get("mask", jnp.ones((1, 1), bool))
        valid = {"mask": jnp.logical_and(mask, real[:, None])}
    return apply(variables, batch["x"], **valid, **options, mutable=[STATISTICS])


def validity(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Return what a model is told of a batch's padding: its mask, or where it has none its lengths.

    Images have neither.
    """
    known = [name for name in ("mask", "lengths") if name in batch]
    return {name: batch[name] for name in known[:1]}


def packed(variables: Variables) -> Any:
    """Return variables as a checkpoint holds them: parameters alone where there is nothing else."""
    return variables if len(variables) > 1 else variables["params"]


def unpacked(tree: Any, like: Variables) -> Variables:
    """Return the variables, of the collections of ``like``, that `packed` made ``tree`` of."""
    return tree if len(like) > 1 else {"params": tree}
