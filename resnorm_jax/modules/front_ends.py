"""From inputs to the stream: ``[B, L, D]`` from tokens, continuous features or images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_axes, check_integers, check_real, deprecated


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
        """Embed ``x [B, L]``; TypeError for what is not integers."""
        check_integers("x", x, "ids of tokens")
        check_axes(x=(x, "... L"))
        return nn.Embed(
            self.vocabulary, self.width, dtype=self.dtype, param_dtype=self.param_dtype,
            embedding_init=nn.initializers.normal(self.gain), name="embed",
        )(x)  # fmt: skip


class FeatureEmbedding(nn.Module):
    """Project continuous features: ``[B, L, C]`` to ``[B, ceil(L / stride), D]``.

    Attributes:
      width: D.
      kernel: positions that a projection sees; over 1 it is a convolution with zeros beyond the ends,
        so that padding (zeros too) still changes nothing.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.
      stride: positions from one token to the next. Over 1, token j (from 0) sees the positions from
        ``j * stride`` to ``j * stride + kernel - 1``; at 1 they lie around it.

    Raises:
      ValueError: for a kernel under the stride, which would skip positions.

    Source: patches are those of Nie et al. 2023 (arXiv 2211.14730), section 3.1. There each channel is
    a series of its own, and the end is padded with the last value; here all channels are projected
    together, and zeros are beyond the end.
    """

    width: int
    kernel: int = 1
    dtype: Any = None
    param_dtype: Any = jnp.float32
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Embed ``x [B, L, C]``; TypeError for complex numbers, ValueError for another rank."""
        check_real("x", x)
        check_axes(x=(x, "... L C" if self.kernel == 1 else "B L C"))
        if x.ndim != 3:
            deprecated(f"x has shape {x.shape}; it must be [B, L, C], of one channel [B, L, 1]")
        if self.kernel < self.stride:
            raise ValueError(
                f"kernel={self.kernel} is under stride={self.stride}: positions would be skipped"
            )
        options = {"dtype": self.dtype, "param_dtype": self.param_dtype, "name": "project"}
        if self.kernel == 1:
            return nn.Dense(self.width, **options)(x)
        kernel, stride = (self.kernel,), (self.stride,)
        if self.stride == 1:
            return nn.Conv(self.width, kernel, padding="SAME", **options)(x)
        # The last token begins at the last multiple of the stride; what it sees beyond the end is 0.
        beyond = (x.shape[1] - 1) // self.stride * self.stride + self.kernel - x.shape[1]
        return nn.Conv(self.width, kernel, stride, padding=[(0, beyond)], **options)(x)


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
        """Embed ``x [B, H, W, C]``; TypeError for complex numbers, ValueError for another rank."""
        check_real("x", x)
        check_axes(x=(x, "B H W C"))
        _, height, wide, _ = x.shape
        if height % self.patch or wide % self.patch:
            raise ValueError(f"patch={self.patch} does not divide an image of {height} x {wide}")
        sides = (self.patch, self.patch)
        y = nn.Conv(
            self.width, sides, strides=sides, padding="VALID",
            dtype=self.dtype, param_dtype=self.param_dtype, name="project",
        )(x)  # fmt: skip
        return y.reshape(y.shape[0], -1, self.width)
