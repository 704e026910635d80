"""Many small trainings as one compiled program: seeds and learning rates side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Loss = Callable[..., jax.Array]


class Trained(NamedTuple):
    """Of each variant (first axis), seed (second) and learning rate (third).

    Attributes:
      params: at the end.
      losses: ``[V, S, R, steps]``, of the batch before its update.
      seen: what ``observe`` returned, ``[V, S, R, looks + 1, ...]``: at the start, then after every
        so many steps.
    """

    params: Any
    losses: jax.Array
    seen: Any


def train_grid(
    init: Callable[..., Any],
    loss: Loss,
    seeds: int,
    rates: tuple[float, ...],
    steps: int,
    *,
    variants: Any = None,
    observe: Callable[..., Any] = lambda params, variant: (),
    every: int | None = None,
    first_seed: int | jax.Array = 0,
) -> Trained:
    """Train with Adam every variant from every seed at every learning rate, in one program.

    Args:
      init: key and variant to parameters.
      loss: parameters, root key of the run, step and variant to the loss; it picks its own batch.
      seeds: how many, from ``first_seed`` on.
      rates: learning rates, constant over a run.
      steps: of each run; a multiple of ``every``.
      variants: arrays with a leading axis, one slice a variant; None for one, which is told 0.
      observe: parameters and variant to whatever is to be looked at.
      every: steps between looks; None for one look at the end.
      first_seed: of the seeds.
    """
    every = every or steps
    if steps % every:
        raise ValueError(f"every={every} does not divide steps={steps}")
    adam = optax.scale_by_adam()

    def run(variant: Any, seed: jax.Array, rate: jax.Array) -> Trained:
        key, root = jax.random.split(jax.random.key(seed))

        def step(carry, n):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, root, n, variant)
            updates, state = adam.update(gradient, state)
            return (optax.tree.add_scale(params, -rate, updates), state), value

        def look(carry, n):
            carry, losses = jax.lax.scan(step, carry, n * every + jnp.arange(every))
            return carry, (losses, observe(carry[0], variant))

        params = init(key, variant)
        start = observe(params, variant)
        carry = (params, adam.init(params))
        (params, _), (losses, seen) = jax.lax.scan(look, carry, jnp.arange(steps // every))
        seen = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, seen)
        return Trained(params, losses.reshape(-1), seen)

    grid = jax.vmap(jax.vmap(jax.vmap(run, (None, None, 0)), (None, 0, None)), (0, None, None))
    which = jnp.zeros(1) if variants is None else variants
    return jax.jit(grid)(which, first_seed + jnp.arange(seeds), jnp.array(rates, jnp.float32))


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the batch, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def rows_of_step(root: jax.Array, step: jax.Array, rows: int, batch: int) -> jax.Array:
    """Indices of a batch: epochs are permutations, whose last ``rows % batch`` rows are left out."""
    per_epoch = rows // batch
    order = jax.random.permutation(jax.random.fold_in(root, step // per_epoch), rows)
    return jax.lax.dynamic_slice(order, (step % per_epoch * batch,), (batch,))


def best_rate(scores: Any) -> int:
    """Index of the rate with the least median over seeds of a score ``[S, R]``; ties: the first.

    Scores that are not finite are the worst.
    """
    scores = np.asarray(scores, np.float64)
    return int(np.argmin(np.median(np.where(np.isfinite(scores), scores, np.inf), axis=0)))
