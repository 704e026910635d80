"""Activations of feed-forward networks, one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax

from resnorm_jax.registry import Registry


@dataclass(frozen=True)
class Activation:
    """A feed-forward network's activation.

    Attributes:
      name: name of the row.
      function: of the first projection.
      gated: whether what it gives is multiplied by a second projection, the gate.
      equation: one line, for people; u is the first projection, v the gate.
      source: paper and equation.
    """

    name: str
    function: Callable[[jax.Array], jax.Array]
    gated: bool
    equation: str
    source: str


GELU = Activation(
    "gelu",
    partial(jax.nn.gelu, approximate=False),
    False,
    "u Phi(u), Phi the standard normal distribution function; exact, not by tanh",
    "Hendrycks and Gimpel 2016 (arXiv 1606.08415)",
)
ACTIVATIONS: Registry[Activation] = Registry(
    "activation",
    (
        Activation(
            "relu",
            jax.nn.relu,
            False,
            "max(u, 0)",
            "Vaswani et al. 2017 (arXiv 1706.03762), eq. 2",
        ),
        GELU,
        Activation(
            "swiglu",
            jax.nn.silu,
            True,
            "u sigmoid(u) v",
            "Shazeer 2020 (arXiv 2002.05202), eq. 6",
        ),
    ),
)
