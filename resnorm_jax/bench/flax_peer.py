"""The same classifier in plain flax.linen, as its examples write one: a Python loop over layers."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.modules.encoder import layer_parameters


class FlaxLayer(nn.Module):
    """A pre-LN Transformer layer of flax.linen's own modules."""

    heads: int
    mlp_width: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Run the layer on ``x [B, L, D]``; ``mask`` broadcasts to ``[B, H, L, L]``."""
        h = nn.LayerNorm(dtype=self.dtype, name="norm_1")(x)
        x = x + nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype, name="attention")(
            h, mask=mask
        )
        h = nn.LayerNorm(dtype=self.dtype, name="norm_2")(x)
        h = nn.gelu(nn.Dense(self.mlp_width, dtype=self.dtype, name="fc1")(h), approximate=False)
        return x + nn.Dense(x.shape[-1], dtype=self.dtype, name="fc2")(h)


class FlaxClassifier(nn.Module):
    """Project, add learned positions, run the layers, normalize, average, classify."""

    depth: int
    width: int
    heads: int
    mlp_width: int
    classes: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        """Return the logits of ``x [B, L, C]``; ``mask [B, L]`` is True where valid."""
        h = nn.Dense(self.width, dtype=self.dtype, name="project")(x)
        shape = h.shape[1:]
        positions = self.param("positions", nn.initializers.normal(0.02), shape)
        h = h + positions.astype(h.dtype)
        for index in range(self.depth):
            layer = FlaxLayer(self.heads, self.mlp_width, self.dtype, name=f"layer_{index}")
            h = layer(h, mask[:, None, None, :])
        h = nn.LayerNorm(dtype=self.dtype, name="norm")(h).astype(jnp.float32)
        valid = mask[..., None]
        pooled = jnp.sum(jnp.where(valid, h, 0), 1) / jnp.maximum(jnp.sum(valid, 1), 1)
        return nn.Dense(self.classes, name="head")(pooled)


def from_ours(params: Any, depth: int) -> dict[str, Any]:
    """Return the parameters of a pre-LN `SequenceClassifier` in `FlaxClassifier`'s tree, copied."""
    params = jax.tree.map(np.asarray, params)
    encoder = params["encoder"]
    tree: dict[str, Any] = {
        "project": params["front_end"]["project"],
        "positions": params["positions"]["embedding"],
        "norm": encoder["final_norm"],
        "head": params["head"],
    }
    for index in range(depth):
        layer = layer_parameters(encoder, index + 1)
        tree[f"layer_{index}"] = {
            "norm_1": layer["attention"]["norm_before"],
            "attention": layer["attention"]["branch"],
            "norm_2": layer["feed_forward"]["norm_before"],
            **layer["feed_forward"]["branch"],
        }
    return jax.tree.map(jnp.array, tree)


def flax_step(model: nn.Module, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    """Return ``step((params, opt_state), batch) -> ((params, opt_state), loss)``, not jitted."""

    def loss(params, batch):
        logits = model.apply({"params": params}, batch["x"], batch["mask"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return losses.mean()

    def step(state, batch):
        params, opt_state = state
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return step
