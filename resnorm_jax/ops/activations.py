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
      equation: of the whole network, one line from which it can be written.
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
    "W2 gelu(W1 x + b1) + b2, gelu(z) = z Phi(z) = z (1 + erf(z / sqrt(2))) / 2",
    "Hendrycks and Gimpel 2016 (arXiv 1606.08415), exact, not by tanh",
)
ACTIVATIONS: Registry[Activation] = Registry(
    "activation",
    (
        Activation(
            "relu",
            jax.nn.relu,
            False,
            "W2 max(W1 x + b1, 0) + b2",
            "Vaswani et al. 2017 (arXiv 1706.03762), eq. 2",
        ),
        GELU,
        Activation(
            "swiglu",
            jax.nn.silu,
            True,
            "W2 (silu(W1 x + b1) (Wg x + bg)) + b2, silu(z) = z sigmoid(z)",
            "Shazeer 2020 (arXiv 2002.05202), eq. 6, here with biases",
        ),
    ),
)
