"""The article's trainings: every variant, seed and learning rate in one program, by Adam."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.lab.trainer import descent, over, scan_and_look

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

    def one(variant: Any, seed: jax.Array, rate: jax.Array) -> Trained:
        key, root = jax.random.split(jax.random.key(seed))
        optimizer = optax.chain(optax.scale_by_adam(), optax.scale(-rate))
        step = descent(lambda params, n: (loss(params, root, n, variant), None), optimizer)
        params = init(key, variant)
        (params, _), losses, seen = scan_and_look(
            step, (params, optimizer.init(params)), jnp.arange(steps), every or steps,
            lambda carry: observe(carry[0], variant),
        )  # fmt: skip
        return Trained(params, losses, seen)

    def grid(variants: Any, seeds: jax.Array, rates: jax.Array) -> Trained:
        def of_seed(variant: Any, seed: jax.Array) -> Trained:
            return over(lambda rate: one(variant, seed, rate), rates, together=True)

        def of_variant(variant: Any) -> Trained:
            return over(lambda seed: of_seed(variant, seed), seeds, together=True)

        return over(of_variant, variants, together=True)

    which = jnp.zeros(1) if variants is None else variants
    return jax.jit(grid)(which, first_seed + jnp.arange(seeds), jnp.array(rates, jnp.float32))


def best_rate(scores: Any) -> int:
    """Index of the rate with the least median over seeds of a score ``[S, R]``; ties: the first.

    Scores that are not finite are the worst.
    """
    scores = np.asarray(scores, np.float64)
    return int(np.argmin(np.median(np.where(np.isfinite(scores), scores, np.inf), axis=0)))
