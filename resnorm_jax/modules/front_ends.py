"""From inputs to the stream: ``[B, L, D]`` from tokens, continuous features or images."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from resnorm_jax.arguments import check_axes, check_integers, check_real, deprecated
from resnorm_jax.norms.rows import NORMS


class TokenEmbedding(nn.Module):
    """Look tokens up: ``[B, L]`` integers to ``[B, L, D]``.

    Attributes:
      width: D.
      vocabulary: number of tokens; ids lie below it.
      gain: standard deviation at first: an arrangement's `resnorm_jax.arrangements.Init.embedding`.
      dtype: dtype of the result; None for the parameters'.
      param_dtype: dtype of the parameters.
      token_types: how many types of tokens a learned vector is added for; 0 for none. Source: the
        segments of Devlin et al. 2018 (arXiv 1810.04805), figure 2.
      separator: id of the token that ends the first of two texts: what stands after the first one of a
        row is of type 1. None where all tokens are of type 0.
      multiplier: factor on the looked-up vectors, e.g. ``sqrt(D)`` of Vaswani et al. 2017 (arXiv
        1706.03762), section 3.4.
    """

    width: int
    vocabulary: int
    gain: float = 1.0
    dtype: Any = None
    param_dtype: Any = jnp.float32
    token_types: int = 0
    separator: int | None = None
    multiplier: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, token_types: jax.Array | None = None) -> jax.Array:
        """Embed ``x [B, L]``; TypeError for what is not integers.

        Args:
          x: ids of tokens.
          token_types: ``[B, L]`` integers below ``token_types``; None for those that follow from the
            separator.

        Raises:
          ValueError: for types of tokens where the module has none.
        """
        check_integers("x", x, "ids of tokens")
        check_axes(x=(x, "... L"))
        embed = partial(
            nn.Embed, features=self.width, dtype=self.dtype, param_dtype=self.param_dtype,
        )  # fmt: skip
        init = nn.initializers.normal
        h = embed(self.vocabulary, embedding_init=init(self.gain), name="embed")(x)
        if self.multiplier is not None:
            h = h * jnp.asarray(self.multiplier, h.dtype)
        if not self.token_types:
            if token_types is not None:
                raise ValueError("token_types is given, but the model has none; leave it out")
            return h
        if token_types is None:
            token_types = types_of_tokens(x, self.separator, self.token_types)
        check_integers("token_types", token_types, "below token_types")
        types = embed(self.token_types, embedding_init=init(0.02), name="types")
        return h + types(token_types)


def types_of_tokens(x: jax.Array, separator: int | None, types: int = 2) -> jax.Array:
    """Return 1 for each token after the first separator of its row, else 0: ``[..., L]`` integers.

    >>> types_of_tokens(jnp.array([5, 8, 9, 7, 9]), separator=9).tolist()
    [0, 0, 0, 1, 1]
    """
    if separator is None or types < 2:
        return jnp.zeros_like(x)
    ends = (x == separator).astype(x.dtype)
    return jnp.minimum(jnp.cumsum(ends, axis=-1) - ends, 1)


class EmbeddingProjection(nn.Module):
    """From embeddings of a width of their own to the stream: a norm, then ``E -> D``.

    Attributes:
      width: D.
      norm: row of `resnorm_jax.norms` on the embeddings, or None.
      epsilon: of the norm; None for its own.
      dtype: dtype of the result; None for that of the input.
      param_dtype: dtype of the parameters.

    Source: Lan et al. 2019 (arXiv 1909.11942), section 3.1.
    """

    width: int
    norm: str | None = None
    epsilon: float | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Project ``x [B, L, E]`` to ``[B, L, D]``."""
        options = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.norm is not None:
            row = NORMS.get(self.norm)
            x = row.build(name="embedding_norm", epsilon=self.epsilon, **options)(x)
        return nn.Dense(self.width, name="project", **options)(x)


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
