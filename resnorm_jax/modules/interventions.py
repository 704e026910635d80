"""What a trained model may be made to do otherwise: layers passed by, what branches write replaced.

Two collections among a model's variables; without them nothing is added to a program.

- ``kept_layers``: for each segment of a stack a boolean for each layer. The carry passes a layer that
  is not kept unchanged, ``c_l = c_(l-1)``, whatever the stream; its norms on the stream are passed by
  too. All constants stay those of the whole depth. The first layer's values, where an arrangement
  mixes them into later layers, are still computed.
- ``writes``: what the embedding and each branch hand to the stream, ``[B, L, D]`` each, in place of
  what they compute. The gradient with respect to them goes through the stream alone, and no branch is
  run again. An apply call that may change the collection fills it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

KEPT, WRITES = "kept_layers", "writes"


def kept_flags(stack: nn.Module, segment: str, count: int) -> jax.Array | None:
    """Return which of a segment's layers are kept, ``[N]`` booleans, or None where none was said."""
    name = f"kept_{segment}"
    if stack.is_initializing():
        return None
    if stack.has_variable(KEPT, name) or stack.is_mutable_collection(KEPT):
        return stack.variable(KEPT, name, lambda: jnp.ones(count, bool)).value
    return None


def pass_by(new: Any, old: Any, kept: jax.Array | None) -> Any:
    """Return the carry after a layer, or that before it where the layer is not kept."""
    if kept is None:
        return new
    return jax.tree.map(lambda a, b: jnp.where(kept, a, b), new, old)


def written(module: nn.Module, name: str, y: jax.Array) -> jax.Array:
    """Return what ``module`` was given to write in place of ``y``, which is noted where asked for."""
    if module.is_initializing():
        return y
    if module.is_mutable_collection(WRITES):
        module.put_variable(WRITES, name, y)
    elif module.has_variable(WRITES, name):
        return module.get_variable(WRITES, name).astype(y.dtype)
    return y


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

    def made(*given: Any) -> Any:
        return model.apply(variables, *given, mutable=[KEPT], **kwargs)[1][KEPT]

    found, structure = jax.tree_util.tree_flatten_with_path(jax.eval_shape(made, *args))
    order = sorted(range(len(found)), key=lambda i: _number(found[i][0][-1].key))
    ends = np.cumsum([found[i][1].shape[0] for i in order])

    def cut(keep: Any) -> dict[str, Any]:
        flags = np.asarray(keep, bool)
        if flags.shape != (ends[-1],):
            raise ValueError(f"keep has shape {flags.shape}, the model {ends[-1]} layers")
        parts = dict(zip(order, np.split(flags, ends[:-1]), strict=True))
        leaves = [parts[i] for i in range(len(found))]
        return {**variables, KEPT: jax.tree_util.tree_unflatten(structure, leaves)}

    return cut


def _number(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else 0
