"""Ways to tell positions apart."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.registry import Registry


def sinusoids(length: int, width: int, base: float = 10_000.0) -> np.ndarray:
    """Return the ``[length, width]`` table of sines (even features) and cosines (odd features).

    ``sin(p base**(-2i/D))`` at feature 2i, ``cos`` of the same at 2i+1.
    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5.
    """
    even = np.arange(0, width, 2)
    angle = np.arange(length)[:, None] * base ** (-even / width)
    table = np.zeros((length, width))
    table[:, 0::2] = np.sin(angle)
    table[:, 1::2] = np.cos(angle)[:, : width // 2]
    return table


class LearnedPositions(nn.Module):
    """Add a learned vector to each position; at most ``max_length`` of them.

    Attributes:
      max_length: most positions.
      param_dtype: dtype of the parameters.
      offset: rows of the table before that of the first position (RoBERTa has 2), which are not read.

    Source: Gehring et al. 2017 (arXiv 1705.03122), section 3.1; initialized N(0, 0.02^2) as BERT.
    """

    max_length: int
    param_dtype: Any = jnp.float32
    offset: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Add to ``x [B, L, D]``; raise ValueError if L is over ``max_length``."""
        length, width = x.shape[1:]
        if length > self.max_length:
            raise ValueError(
                f"a sequence has {length} positions, but the model learned {self.max_length}"
            )
        init = nn.initializers.normal(0.02)
        shape = (self.offset + self.max_length, width)
        table = self.param("embedding", init, shape, self.param_dtype)
        return x + table[self.offset : self.offset + length].astype(x.dtype)


class SinusoidalPositions(nn.Module):
    """Add the sinusoids of `sinusoids`, which have no parameters and no longest length.

    Attributes:
      max_length: not read.
      param_dtype: not read.
      offset: number of the first position.
    """

    max_length: int = 0
    param_dtype: Any = jnp.float32
    offset: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Add to ``x [B, L, D]``."""
        length, width = x.shape[1:]
        return x + jnp.asarray(sinusoids(self.offset + length, width)[self.offset :], x.dtype)


@dataclass(frozen=True)
class Positions:
    """A row: a module that adds to the embedded input, or rotary attention, or nothing."""

    name: str
    source: str
    module: Callable[..., nn.Module] | None = None
    rotary: bool = False
    limited: bool = False  # whether there is a longest sequence


POSITIONS: Registry[Positions] = Registry(
    "positions",
    (
        Positions("none", "order is not seen"),
        Positions(
            "learned", "Gehring et al. 2017 (arXiv 1705.03122)", LearnedPositions, limited=True
        ),
        Positions("sinusoidal", "Vaswani et al. 2017 (arXiv 1706.03762)", SinusoidalPositions),
        Positions("rotary", "Su et al. 2021 (arXiv 2104.09864)", rotary=True),
    ),
)
