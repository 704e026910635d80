"""Kernels of unit length, put back there after every update: nGPT's normalization of weights."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from resnorm_jax.ops.norms import l2_norm

# Path to the axis that runs along the stream, from the end, so that stacks of layers change nothing:
# what reads the stream has unit columns, what writes to it unit rows.
AXES = (
    (r"(^|/)(query|key|value)/kernel$", -3),
    (r"(^|/)(out|fc2)/kernel$", -1),
    (r"(^|/)(fc1|gate)/kernel$", -2),
    (r"(^|/)embed/embedding$", -1),
)


def normalize_weights(params: Any) -> Any:
    """Return parameters with every kernel of `AXES` over its length along the stream's axis.

    Source: Loshchilov et al. 2024 (arXiv 2410.01131); normalize_matrices in train.py of
    NVIDIA/ngpt, called once before training and after every update. There the head's kernel is of unit
    length too, with a learned scale of the logits; here the head stays free, in place of that scale.

    >>> import jax.numpy as jnp
    >>> normalize_weights({"fc1": {"kernel": jnp.array([[3.0], [4.0]])}})["fc1"]["kernel"].tolist()
    [[0.6000000238418579], [0.800000011920929]]
    """
    return jax.tree_util.tree_map_with_path(_normalized, params)


def unit_weights() -> optax.GradientTransformation:
    """The transform whose update lands on unit kernels: ``normalize_weights(params + u) - params``.

    It stands last in a chain, after the learning rate.
    """

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("unit_weights needs the parameters: optimizer.update(..., params)")
        moved = normalize_weights(optax.apply_updates(params, updates))
        return jax.tree.map(lambda new, old: new - old, moved, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _normalized(path: Any, leaf: jax.Array) -> jax.Array:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    axis = next((axis for rule, axis in AXES if re.search(rule, name)), None)
    if axis is None:
        return leaf
    return jnp.moveaxis(l2_norm(jnp.moveaxis(leaf, axis, -1)), -1, axis)
