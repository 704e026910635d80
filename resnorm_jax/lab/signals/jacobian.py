"""Singular values of a function's Jacobian, without the matrix; with it where it is small.

Block Krylov (Musco and Musco 2015, arXiv 1504.05477, algorithm 2): from a block of random vectors X,
the blocks ``(J^T J)^i X``, orthonormal, span a space V; the singular values of ``J V`` are lower bounds
of the largest of J. A block finds equal values as often as they occur, up to its size. ``|J|_F^2`` is
the mean of ``|J z|^2`` over random signs z (Hutchinson 1990).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

FRESH = 1e-5  # share of a random block in each; bounds from any orthonormal space are true
Function = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class JacobianOptions:
    """How singular values are found.

    Attributes:
      rows: examples of the batch: examples do not see each other, so few will do.
      block: vectors of a block; how many singular values are reported.
      depth: blocks.
      probes: random signs for each block, for the mean square.
      dense: the matrix is made, and all its singular values, up to this many entries of the input.
    """

    rows: int = 4
    block: int = 8
    depth: int = 5
    probes: int = 4
    dense: int = 2_000


def matrix(function: Function, x: jax.Array) -> jax.Array:
    """The Jacobian ``[n, n]`` of a function at ``x``, both of n entries: entry ij is ``df_i/dx_j``."""
    _, push = jax.linearize(function, x)
    basis = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    return jax.lax.map(lambda v: push(v).ravel(), basis, batch_size=64).T


def krylov(
    function: Function, x: jax.Array, valid: jax.Array, key: jax.Array, options: JacobianOptions
) -> tuple[jax.Array, jax.Array]:
    """Largest singular values, and samples of the mean square one.

    Args:
      function: keeps the shape.
      x: where.
      valid: shape that broadcasts to ``x``'s, True at entries that count; the function reads no
        others, and gives 0 there.
      key: random key.
      options: sizes.

    Returns:
      ``[block]`` in falling order, and ``[depth * probes]`` samples of ``|J|_F^2 / n``, n the entries
      that count; there must be at least ``block * depth`` of them.
    """
    _, push = jax.linearize(function, x)
    pull = jax.linear_transpose(push, x)
    counted = jnp.broadcast_to(valid, x.shape)
    first, second = jax.random.split(key)
    block, depth = options.block, options.depth

    def flat(vectors: jax.Array) -> jax.Array:
        return vectors.reshape(len(vectors), -1)

    # Fresh directions in every block: where J^T J maps a block into the span, the rest is roundoff.
    fresh = jax.random.normal(first, (depth + 1, block, *x.shape), x.dtype) * counted
    signs = jax.random.rademacher(second, (depth, options.probes, *x.shape), x.dtype) * counted
    basis = jnp.zeros((depth, block, x.size), x.dtype)

    def step(carry, given):
        basis, vectors = carry
        number, probes, other = given
        basis = basis.at[number].set(vectors)
        both = jnp.concatenate([vectors.reshape(-1, *x.shape), probes])
        image = jax.vmap(push)(both)  # one call for both, so that it is compiled once
        pushed, sampled = flat(image[:block]), flat(image[block:])
        # Scaled in between: with large singular values the squares would overflow.
        pulled = jax.vmap(lambda u: pull(u)[0])(_unit(pushed).reshape(block, *x.shape))
        new = _unit(flat(pulled)) + FRESH * flat(other)
        new = _orthonormal(new, basis.reshape(-1, x.size))
        return (basis, new), (pushed, jnp.sum(sampled**2, axis=1))

    vectors = _orthonormal(flat(fresh[0]), basis.reshape(-1, x.size))
    given = (jnp.arange(depth), signs, fresh[1:])
    _, (images, squares) = jax.lax.scan(step, (basis, vectors), given)
    values = jnp.linalg.svd(images.reshape(-1, x.size), compute_uv=False)
    return values[:block], squares.ravel() / jnp.maximum(jnp.sum(counted), 1)


def _unit(vectors: jax.Array) -> jax.Array:
    peak = jnp.max(jnp.abs(vectors))
    return vectors / jnp.where(peak > 0, peak, 1)


def _orthonormal(vectors: jax.Array, basis: jax.Array) -> jax.Array:
    """Rows orthonormal, and orthogonal to those of ``basis``; three times, for float32."""
    for _ in range(3):
        vectors = _unit(vectors)
        vectors = vectors - (vectors @ basis.T) @ basis
        vectors = jnp.linalg.qr(_unit(vectors).T)[0].T
    return vectors
