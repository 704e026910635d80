"""Training steps of JAX that are compared: ours, scanned and unrolled, and flax.linen's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.bench.flax_peer import flax_step, from_ours
from resnorm_jax.bench.model import (
    Size,
    flax_model,
    optimizer,
    our_model,
)
from resnorm_jax.bench.ways import step_options
from resnorm_jax.training.step import TrainState, create_state, train_step

SCANNED, UNROLLED, FLAX = "ours scanned", "ours unrolled", "flax"


def our_step(size: Size, dtype: Any, unroll: int | None) -> Callable[..., Any]:
    """Return this library's own training step, not jitted; ``unroll`` as `our_model` takes it."""
    options = step_options(our_model(size, dtype, unroll).apply)
    return lambda state, batch: train_step(state, batch, options)


def our_state(params: Any) -> TrainState:
    """Return the state before the first of `our_step`."""
    return create_state({"params": params}, optimizer(), 0, None)


def jax_steps(size: Size, dtype: Any, params: Any) -> dict[str, tuple[Callable[..., Any], Any]]:
    """Return name to step function, not jitted, and first state; all begin with ``params``."""
    steps: dict[str, tuple[Callable[..., Any], Any]] = {
        name: (our_step(size, dtype, unroll), our_state(jax.tree.map(jnp.copy, params)))
        for name, unroll in ((SCANNED, 1), (UNROLLED, size.depth))
    }
    theirs = from_ours(params, size.depth)
    steps[FLAX] = (
        flax_step(flax_model(size, dtype), optimizer()),
        (theirs, optimizer().init(theirs)),
    )
    return steps
