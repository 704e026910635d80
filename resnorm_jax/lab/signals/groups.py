"""Parameters by what they are for and by layer: norms of each group of a classifier's parameters."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.arrangements import ROLES
from resnorm_jax.modules.hooks import euclidean_norm
from resnorm_jax.planning import Segment

# Group and pattern of the path within a layer; first match wins, and the last takes the rest.
LAYER_GROUPS: tuple[tuple[str, str], ...] = (
    ("norms", r"(^|/)(\w+_)?norm(_\w+)?/"),
    *((role, rf"(^|/){role}/") for role in ROLES),
    ("gate", r"branch.*/gate/"),
    ("inside", r"(^|/)branch/"),  # scales of heads, of queries and keys, inside the MLP
    ("stream", r""),  # the residual scheme's own
)
# The same for paths outside of all layers.
OUTER_GROUPS: tuple[tuple[str, str], ...] = (
    ("head", r"^head/"),
    ("stack", r"^encoder/"),  # final and embedding norm; what all layers share
    ("embedding", r""),
)
Norms = dict[str, jax.Array]


def _group(path: str, rows: tuple[tuple[str, str], ...]) -> str:
    return next(name for name, pattern in rows if re.search(pattern, path))


def group_norms(tree: Any, segments: Sequence[Segment]) -> tuple[Norms, Norms]:
    """Return the Euclidean norm of each group of a classifier's parameters, or of their gradients.

    Args:
      tree: parameters of a `SequenceClassifier`, or anything of their structure.
      segments: of its encoder.

    Returns:
      Group to ``[N]``, NaN at layers that lack it; and group to a scalar, outside of the layers.
    """
    depth = sum(len(s.layers) for s in segments)
    starts = [sum(len(s.layers) for s in segments[:n]) for n in range(len(segments))]
    inner: dict[str, dict[int, list[jax.Array]]] = {}
    outer: dict[str, list[jax.Array]] = {}
    for key, leaf in jax.tree_util.tree_leaves_with_path(tree):
        path = jax.tree_util.keystr(key, simple=True, separator="/")
        match = re.match(r"encoder/layers(?:_(\d+))?/(.*)", path)
        if match is None:
            outer.setdefault(_group(path, OUTER_GROUPS), []).append(euclidean_norm(leaf))
            continue
        found = inner.setdefault(_group(match[2], LAYER_GROUPS), {})
        norms = euclidean_norm(leaf.reshape(leaf.shape[0], -1), axis=1)
        found.setdefault(int(match[1] or 0), []).append(norms)
    return (
        {
            name: _by_layer(parts, starts, depth, segments[0].repeats)
            for name, parts in inner.items()
        },
        {name: euclidean_norm(jnp.stack(parts)) for name, parts in outer.items()},
    )


def _by_layer(
    parts: dict[int, list[jax.Array]], starts: list[int], depth: int, repeats: int
) -> jax.Array:
    out = jnp.full(depth, jnp.nan, jnp.float32)
    for number, norms in parts.items():
        # Layers that share their parameters share the norm too.
        joined = jnp.repeat(euclidean_norm(jnp.stack(norms), axis=0), repeats)
        out = out.at[starts[number] : starts[number] + len(joined)].set(joined)
    return out
