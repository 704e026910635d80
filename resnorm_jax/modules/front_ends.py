"""From inputs to the stream: ``[B, L, D]`` from tokens, continuous features or images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class TokenEmbedding(nn.Module):
    """Look tokens up: ``[B, L]`` integers to ``[B, L, D]``.

    Attributes:
      width: D.
      vocabulary: number of tokens; ids lie below it.
      gain: standard deviation at first: an arrangement's `resnorm_jax.arrangements.Init.embedding`.
      dtype: dtype of the result; None for the parameters'.
      param_dtype: dtype of the parameters.
    """

    width: int
    vocabulary: int
    gain: float = 1.0
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Embed ``x [B, L]``."""
        return nn.Embed(
            self.vocabulary, self.width, dtype=self.dtype, param_dtype=self.param_dtype,
            embedding_init=nn.initializers.normal(self.gain), name="embed",
        )(x)  # fmt: skip


class FeatureEmbedding(nn.Module):
    """Project continuous features: ``[B, L, C]`` to ``[B, L, D]``.

    Attributes:
      width: D.
      kernel: positions that a projection sees; over 1 it is a convolution with zeros beyond the ends,
        so that padding (zeros too) still changes nothing.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
    """

    width: int
    kernel: int = 1
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Embed ``x [B, L, C]``."""
        options = {"dtype": self.dtype, "param_dtype": self.param_dtype, "name": "project"}
        if self.kernel == 1:
            return nn.Dense(self.width, **options)(x)
        return nn.Conv(self.width, (self.kernel,), padding="SAME", **options)(x)


class PatchEmbedding(nn.Module):
    """Cut images into patches and project them: ``[B, H, W, C]`` to ``[B, L, D]``.

    L is ``(H / patch) (W / patch)``, in reading order.

    Attributes:
      width: D.
      patch: side of a patch in pixels; must divide H and W.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.

    Source: Dosovitskiy et al. 2020 (arXiv 2010.11929), eq. 1.
    """

    width: int
    patch: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Embed ``x [B, H, W, C]``."""
        _, height, wide, _ = x.shape
        if height % self.patch or wide % self.patch:
            raise ValueError(f"patch={self.patch} does not divide an image of {height} x {wide}")
        sides = (self.patch, self.patch)
        y = nn.Conv(
            self.width, sides, strides=sides, padding="VALID",
            dtype=self.dtype, param_dtype=self.param_dtype, name="project",
        )(x)  # fmt: skip
        return y.reshape(y.shape[0], -1, self.width)
