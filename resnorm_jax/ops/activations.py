"""Activations of feed-forward networks, one row each."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jax import lax

from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.registry import Registry


def gelu(z: jax.Array) -> jax.Array:
    """``z Phi(z) = z (1 + erf(z / sqrt(2))) / 2``, exact, not by tanh.

    `jax.nn.gelu` takes ``erfc``, which on a CPU costs as much as four passes over the array. This one
    costs one, and is off by a rounding of the largest values (1e-6 at 5.3) at most, but its values
    under 1e-5, left of -4, keep no digits of their own.

    Args:
      z: floating point, any shape.

    Returns:
      Array of ``z``'s shape and dtype, computed in float32 at least.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.

    >>> import jax.numpy as jnp
    >>> [f"{value:.4f}" for value in gelu(jnp.array([-1.0, 0.0, 1.0]))]
    ['-0.1587', '0.0000', '0.8413']
    """
    wide = z.astype(statistics_dtype(z))
    return (wide * (0.5 + 0.5 * lax.erf(wide * 0.5**0.5))).astype(z.dtype)


def gelu_tanh(z: jax.Array) -> jax.Array:
    """``z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2``, at most 5e-4 from the exact `gelu`.

    Args:
      z: floating point, any shape.

    Returns:
      Array of ``z``'s shape and dtype, computed in float32 at least.

    Source: Hendrycks and Gimpel 2016 (arXiv 1606.08415), section 2.

    >>> import jax.numpy as jnp
    >>> [f"{value:.4f}" for value in gelu_tanh(jnp.array([-1.0, 0.0, 1.0]))]
    ['-0.1588', '0.0000', '0.8412']
    """
    return jax.nn.gelu(z.astype(statistics_dtype(z)), approximate=True).astype(z.dtype)


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
    gelu,
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
            "gelu_tanh",
            gelu_tanh,
            False,
            "W2 gelu(W1 x + b1) + b2, gelu(z) = z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2",
            "Hendrycks and Gimpel 2016 (arXiv 1606.08415), by tanh",
        ),
        Activation(
            "silu",
            jax.nn.silu,
            False,
            "W2 silu(W1 x + b1) + b2, silu(z) = z sigmoid(z)",
            "Elfwing et al. 2017 (arXiv 1702.03118), eq. 4",
        ),
        Activation(
            "geglu",
            gelu,
            True,
            "W2 (gelu(W1 x + b1) (Wg x + bg)) + b2, gelu(z) = z Phi(z), exact",
            "Shazeer 2020 (arXiv 2002.05202), eq. 6, here with biases",
        ),
        Activation(
            "geglu_tanh",
            gelu_tanh,
            True,
            "W2 (gelu(W1 x + b1) (Wg x + bg)) + b2, gelu by tanh as in gelu_tanh",
            "Shazeer 2020 (arXiv 2002.05202), eq. 6, with GemmaMLP's gelu of huggingface/transformers",
        ),
        Activation(
            "swiglu",
            jax.nn.silu,
            True,
            "W2 (silu(W1 x + b1) (Wg x + bg)) + b2, silu(z) = z sigmoid(z)",
            "Shazeer 2020 (arXiv 2002.05202), eq. 6, here with biases",
        ),
    ),
)
