"""Speed of one training step (forward, backward, AdamW), beside flax.linen and torch."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.bench import torch_peer
from resnorm_jax.bench.flax_peer import flax_step, from_ours
from resnorm_jax.bench.model import (
    Size,
    flax_model,
    initial_parameters,
    optimizer,
    our_model,
    parameter_count,
    random_batch,
)
from resnorm_jax.bench.timing import Budget, comparison, interleave
from resnorm_jax.training.step import StepOptions, TrainState, create_state, train_step

SCANNED, UNROLLED, FLAX, TORCH = "ours scanned", "ours unrolled", "flax", "torch"


def our_step(size: Size, dtype: Any, unroll: int) -> Callable[..., Any]:
    """Return this library's own training step, not jitted."""
    options = StepOptions(our_model(size, dtype, unroll).apply, optimizer())
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


def step_speed(size: Size, dtype_name: str, budget: Budget) -> dict[str, Any]:
    """Measure the training step; return times and ratios."""
    batch = random_batch(size)
    on_device = jax.device_put(batch)
    params = initial_parameters(size)
    steps = jax_steps(size, jnp.dtype(dtype_name), params)
    counts = {name: parameter_count(_parameters(state)) for name, (_, state) in steps.items()}
    functions = {name: _repeated(step, state, on_device) for name, (step, state) in steps.items()}
    skipped = {}
    reason = torch_peer.unavailable()
    if reason is None:
        functions[TORCH], counts[TORCH] = torch_peer.step(size, params, batch, dtype_name)
    else:
        skipped[TORCH] = reason
    samples = interleave(functions, budget)
    return {
        "size": asdict(size),
        "parameters": counts,
        **comparison(samples, [SCANNED, UNROLLED], skipped),
    }


def _repeated(step: Callable[..., Any], state: Any, batch: Any) -> Callable[[], None]:
    """Return a function that does one more update; the state's memory is given up to the next."""
    compiled = jax.jit(step, donate_argnums=0)

    def update() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, batch))

    return update


def _parameters(state: Any) -> Any:
    return state[0] if isinstance(state, tuple) else state.params
