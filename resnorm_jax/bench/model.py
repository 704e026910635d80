"""The classifier whose training step is measured, ours and flax.linen's, on one random batch."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.bench.flax_peer import FlaxClassifier
from resnorm_jax.modules.classifier import SequenceClassifier
from resnorm_jax.modules.encoder import TransformerEncoder
from resnorm_jax.modules.front_ends import FeatureEmbedding

LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-4


@dataclass(frozen=True)
class Size:
    """Sizes of the model and of its batch."""

    depth: int = 4
    width: int = 256
    heads: int = 4
    mlp_width: int = 1024
    batch: int = 32
    length: int = 128
    channels: int = 16
    classes: int = 10


def our_model(
    size: Size, dtype: Any = jnp.float32, unroll: Any = 1, **encoder: Any
) -> SequenceClassifier:
    """Return this library's classifier, pre-LN unless ``encoder`` has another ``arrangement``.

    ``unroll=1`` scans the layers, None does what the encoder does by default; ``encoder`` holds
    further fields of the encoder.
    """
    options = encoder if unroll is None else {"unroll": unroll, **encoder}
    return SequenceClassifier(
        size.classes,
        FeatureEmbedding(size.width, dtype=dtype),
        TransformerEncoder(size.depth, size.heads, size.mlp_width, dtype=dtype, **options),
        max_length=size.length,
    )


def flax_model(size: Size, dtype: Any = jnp.float32) -> FlaxClassifier:
    """Return the same classifier in plain flax.linen."""
    return FlaxClassifier(
        size.depth, size.width, size.heads, size.mlp_width, size.classes, dtype=dtype
    )


def optimizer() -> optax.GradientTransformation:
    """Return the optimizer of every JAX model: AdamW on all parameters."""
    return optax.adamw(LEARNING_RATE, weight_decay=WEIGHT_DECAY)


def random_batch(size: Size, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a batch of normal features, of lengths between half and all of ``size.length``."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(size.length // 2, size.length + 1, size.batch)
    shape = (size.batch, size.length, size.channels)
    return {
        "x": rng.standard_normal(shape, dtype=np.float32),
        "y": rng.integers(0, size.classes, size.batch).astype(np.int32),
        "mask": np.arange(size.length) < lengths[:, None],
        "lengths": lengths.astype(np.int32),
        "weight": np.ones(size.batch, np.float32),
    }


def initial_parameters(size: Size, seed: int = 0) -> Any:
    """Return the parameters of `our_model`; peers start at the same ones."""
    batch = random_batch(size, seed)
    model = our_model(size)
    init = jax.jit(model.init)
    return init(jax.random.key(seed), batch["x"][:1], batch["mask"][:1])["params"]


def parameter_count(params: Any) -> int:
    """Return how many numbers a tree of parameters holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))
