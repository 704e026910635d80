"""Encoders at their first parameters: statistics of the stream and of gradients, over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax import arrangements
from resnorm_jax.arrangements import Arrangement, Init
from resnorm_jax.modules.encoder import TransformerEncoder

Measure = Callable[[jax.Array], Any]


@dataclass(frozen=True)
class Setup:
    """An encoder's set-up apart from arrangement and depth, and its random input.

    Attributes:
      width: D.
      heads: attention heads.
      mlp_width: inside the feed-forward network.
      tokens: of a sequence.
      batch: sequences.
      classes: of the head that gives the loss.
      norm: a row of `resnorm_jax.norms`.
    """

    width: int = 64
    heads: int = 4
    mlp_width: int = 256
    tokens: int = 16
    batch: int = 4
    classes: int = 10
    norm: str = "layer"

    def encoder(self, row: str | Arrangement, depth: int) -> TransformerEncoder:
        """Return the encoder; ReLU, and no biases, which are 0 at first anyway."""
        return TransformerEncoder(
            depth=depth, heads=self.heads, mlp_width=self.mlp_width, arrangement=row,
            norm=self.norm, activation="relu", use_bias=False,
        )  # fmt: skip

    def inputs(self, key: jax.Array) -> jax.Array:
        """Return standard normal tokens ``[B, L, D]``."""
        return jax.random.normal(key, (self.batch, self.tokens, self.width))


def normal_init(name: str, **changes: Any) -> Arrangement:
    """Return a row whose kernels are normal, with its own gains, and other fields changed."""
    row = arrangements.get(name)
    return replace(row, init=Init("normal", row.init.gains), **changes)


def over_seeds(measure: Measure, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Return what ``measure`` gives for the key of each seed, compiled once, seeds first."""
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    found = jax.jit(jax.vmap(measure))(keys)
    return {name: np.asarray(value) for name, value in found.items()}


def token_cosine(x: jax.Array) -> jax.Array:
    """Return the mean cosine between different tokens of ``x [..., L, D]``, over all sequences."""
    count = x.shape[-2]
    unit = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    total = jnp.square(unit.sum(-2)).sum(-1)  # of all pairs, each token with itself among them
    return ((total - count) / (count * (count - 1))).mean()


def mean_square(x: jax.Array) -> jax.Array:
    """Return the mean of the squares of all elements."""
    return jnp.square(x).mean()


def kernels_by_layer(params: Mapping[str, Any], path: Sequence[str]) -> jax.Array:
    """Return the kernels at a path within each layer, ``[N, ...]``, over all of an encoder's stacks."""
    names = sorted(n for n in params if n.startswith("layers"))
    found = []
    for name in names:
        tree = params[name]
        for part in path:
            tree = tree[part]
        found.append(tree)
    return jnp.concatenate(found)


FC2 = ("feed_forward", "branch", "fc2", "kernel")
QUERY, VALUE = (("attention", "branch", role, "kernel") for role in ("query", "value"))


def norm_by_layer(params: Mapping[str, Any], path: Sequence[str]) -> jax.Array:
    """Return the Frobenius norm of each layer's kernel at a path, ``[N]``."""
    kernels = kernels_by_layer(params, path)
    return jnp.linalg.norm(kernels.reshape(len(kernels), -1), axis=-1)


def head_loss(out: Any, head: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross-entropy of ``mean over tokens (out) @ head``."""
    logits = out.mean(1) @ head
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
    return -picked.mean()


def draw(setup: Setup, encoder: TransformerEncoder, key: jax.Array) -> tuple[Any, ...]:
    """Return parameters, input, head and labels of one seed."""
    keys = jax.random.split(key, 4)
    x = setup.inputs(keys[0])
    params = encoder.init(keys[1], x)["params"]
    head = jax.random.normal(keys[2], (setup.width, setup.classes)) * setup.width**-0.5
    labels = jax.random.randint(keys[3], (setup.batch,), 0, setup.classes)
    return params, x, head, labels
