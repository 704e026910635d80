"""Many small trainings as one compiled program: seeds and learning rates side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]


class Trained(NamedTuple):
    """Of each seed (first axis) and learning rate (second).

    Attributes:
      params: at the end.
      losses: ``[S, R, steps]``, of the batch before its update.
      seen: what `observe` returned, ``[S, R, looks + 1, ...]``: at the start, then every so often.
    """

    params: Any
    losses: jax.Array
    seen: Any


def train_grid(
    init: Callable[[jax.Array], Any],
    loss: Loss,
    seeds: int,
    rates: tuple[float, ...],
    steps: int,
    *,
    observe: Callable[[Any], Any] = lambda params: (),
    every: int | None = None,
    first_seed: int | jax.Array = 0,
) -> Trained:
    """Train with Adam from every seed at every learning rate.

    Args:
      init: key to parameters.
      loss: parameters, root key of the run and step to the loss; it picks its own batch.
      seeds: how many, from ``first_seed`` on.
      rates: learning rates, constant over a run.
      steps: of each run; a multiple of ``every``.
      observe: parameters to whatever is to be looked at.
      every: steps between looks; None for one look at the end.
      first_seed: so that tuned and measured runs can have different seeds.
    """
    every = every or steps
    if steps % every:
        raise ValueError(f"every={every} does not divide steps={steps}")
    adam = optax.scale_by_adam()

    def run(seed: jax.Array, rate: jax.Array) -> Trained:
        key, root = jax.random.split(jax.random.key(seed))

        def step(carry, n):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, root, n)
            updates, state = adam.update(gradient, state)
            return (optax.tree.add_scale(params, -rate, updates), state), value

        def look(carry, n):
            carry, losses = jax.lax.scan(step, carry, n * every + jnp.arange(every))
            return carry, (losses, observe(carry[0]))

        params = init(key)
        start = observe(params)
        carry = (params, adam.init(params))
        (params, _), (losses, seen) = jax.lax.scan(look, carry, jnp.arange(steps // every))
        seen = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, seen)
        return Trained(params, losses.reshape(-1), seen)

    grid = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    return jax.jit(grid)(first_seed + jnp.arange(seeds), jnp.array(rates, jnp.float32))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the batch, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def rows_of_step(root: jax.Array, step: jax.Array, rows: int, batch: int) -> jax.Array:
    """Indices of a batch: epochs are permutations, whose last ``rows % batch`` rows are left out."""
    per_epoch = rows // batch
    order = jax.random.permutation(jax.random.fold_in(root, step // per_epoch), rows)
    return jax.lax.dynamic_slice(order, (step % per_epoch * batch,), (batch,))


def best_rate(scores: Any, rates: tuple[float, ...]) -> int:
    """Index of the rate with the least median over seeds of a score ``[S, R]``; ties: the first.

    Scores that are not finite are the worst.
    """
    finite = jnp.where(jnp.isfinite(scores), scores, jnp.inf)
    return int(jnp.argmin(jnp.median(finite, axis=0)))
