"""Xie et al. 2025 (hyper-connections): the gain of many mixings of streams in a row."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.lab.theory.claim import Bound, Claim, Measured, Panel, spread_line
from resnorm_jax.lab.theory.probe import over_seeds
from resnorm_jax.schemes.manifold import permutation_mix, sinkhorn

SUBLAYERS, STREAMS = 128, 4


def gains(key: jax.Array, scale: float = 0.3) -> dict:
    """Return ``[S]`` for each kind: largest row or column sum of the product of 1 to S mixings.

    All see the same logits; the unconstrained matrices are ``I + scale * logits``.
    """
    square = jax.random.normal(key, (SUBLAYERS, STREAMS, STREAMS))
    many = jax.random.normal(jax.random.fold_in(key, 1), (SUBLAYERS, 24))
    chains = {
        "Sinkhorn": sinkhorn(square),
        "permutations": permutation_mix(many),
        "unconstrained": jnp.eye(STREAMS) + scale * square,
    }

    def step(product, matrix):
        product = product @ matrix
        size = jnp.abs(product)
        return product, jnp.maximum(size.sum(0).max(), size.sum(1).max())

    return {n: jax.lax.scan(step, jnp.eye(STREAMS), chain)[1] for n, chain in chains.items()}


def measure_gains(seeds: Sequence[int]) -> Measured:
    """Measure the composite gain of 128 mixings."""
    found = over_seeds(gains, seeds)
    numbers = {f"gain_{n.lower()}": float(f[:, -1].mean()) for n, f in found.items()}
    x = list(range(1, SUBLAYERS + 1))
    lines = tuple(spread_line(n, x, f.T) for n, f in found.items())
    band = (x, np.full(SUBLAYERS, 0.9), np.full(SUBLAYERS, 1.6))
    return Measured(numbers, (Panel("sublayers", "composite gain", lines, band, "y"),))


CLAIMS = (
    Claim(
        "mhc_gain",
        "Doubly stochastic mixing keeps the composite gain near 1; free mixing explodes.",
        "Xie et al. 2025 (arXiv 2512.24880), figure of the composite gain",
        (
            Bound("gain_sinkhorn", 0.9, 1.6),
            Bound("gain_permutations", 0.9, 1.6),
            Bound("gain_unconstrained", low=100),
        ),
        measure_gains,
        "128 random mixings of 4 streams, logits N(0, 1); free ones I + 0.3 N(0, 1)",
        seeds=10,
        seconds=4,
        reading="The gain is the most that any stream can grow by from first to last sublayer.",
        why="the paper's greatest gain (1.6); the lower edge and the free mixing's are ours",
    ),
)
