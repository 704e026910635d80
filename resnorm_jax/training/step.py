"""One training step, as a pure function. The step is the only clock."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from resnorm_jax.training.losses import classification_sums

Batch = Mapping[str, jax.Array]
Params = Any
Sums = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a run is: saved, restored, and equal to the bit afterwards.

    Attributes:
      step: updates done.
      key: the run's root key, as raw data; step k uses ``fold_in(key, k)``.
      params: parameters, float32.
      opt_state: the optimizer's state.
      ema: averaged parameters, or None.
      sums: metrics summed since the last logged step.
    """

    step: jax.Array
    key: jax.Array
    params: Params
    opt_state: Any
    ema: Params | None
    sums: Sums


@dataclass(frozen=True)
class StepOptions:
    """What a step is made of, apart from the state."""

    apply: Callable[..., Any]
    optimizer: optax.GradientTransformation
    label_smoothing: float = 0.0
    accumulate: int = 1
    ema: float | None = None
    log_every: int = 1


def create_state(
    params: Params, optimizer: optax.GradientTransformation, seed: int, ema: float | None
) -> TrainState:
    """Return the state before the first update."""
    names = ("loss", "correct", "count", "grad_norm", "steps")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(jax.random.key(seed)),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if ema is not None else None,
        sums={name: jnp.zeros((), jnp.float32) for name in names},  # each its own: donated
    )


def train_step(
    state: TrainState, batch: Batch, options: StepOptions, axis_name: str | None = None
) -> tuple[TrainState, Sums]:
    """Do one update; return the new state and the metrics summed since the last logged step.

    Args:
      state: replicated over ``axis_name``.
      batch: this device's rows: ``x``, ``y``, ``weight`` and, unless images, ``mask``.
      options: model, optimizer and the rest.
      axis_name: the mapped axis over which rows are spread; None on a single device.

    The gradient is that of the mean over the global batch: sums over rows travel between devices
    and are divided by the sum of weights once, so that fillers and uneven devices count rightly.
    """
    sums, gradient = _gradient_sums(state, batch, options, axis_name)
    if axis_name is not None:
        sums, gradient = lax.psum((sums, gradient), axis_name)
    gradient = jax.tree.map(lambda g: g / jnp.maximum(sums["count"], 1), gradient)
    updates, opt_state = options.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    sums |= {"grad_norm": optax.tree.norm(gradient), "steps": jnp.ones((), jnp.float32)}
    fresh = state.step % options.log_every == 0
    sums = {name: jnp.where(fresh, 0, state.sums[name]) + value for name, value in sums.items()}
    state = state.replace(
        step=state.step + 1,
        params=params,
        opt_state=opt_state,
        ema=_averaged(state.ema, params, options.ema),
        sums=sums,
    )
    return state, sums


def predict_step(params: Params, batch: Batch, apply: Callable[..., jax.Array]) -> jax.Array:
    """Return log-probabilities ``[B, K]`` of this device's rows, dropout off."""
    logits = apply({"params": params}, batch["x"], batch.get("mask"), deterministic=True)
    return jax.nn.log_softmax(logits)


def _gradient_sums(state, batch, options: StepOptions, axis_name):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    if axis_name is not None:
        key = jax.random.fold_in(key, lax.axis_index(axis_name))

    def loss(params, part, part_key):
        logits = options.apply(
            {"params": params}, part["x"], part.get("mask"), deterministic=False,
            rngs={"dropout": part_key},
        )  # fmt: skip
        sums = classification_sums(logits, part["y"], part["weight"], options.label_smoothing)
        return sums["loss"], sums

    gradient = jax.grad(loss, has_aux=True)
    if options.accumulate == 1:
        grads, sums = gradient(state.params, batch, key)
        return sums, grads

    def one(total, inputs):
        part, index = inputs
        grads, sums = gradient(state.params, part, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, (sums, grads)), None

    count = options.accumulate
    parts = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), dict(batch))
    zeros = {name: jnp.zeros((), jnp.float32) for name in ("loss", "correct", "count")}
    start = (zeros, jax.tree.map(jnp.zeros_like, state.params))
    total, _ = lax.scan(one, start, (parts, jnp.arange(count)))
    return total


def _averaged(ema: Params | None, params: Params, decay: float | None) -> Params | None:
    if ema is None or decay is None:
        return ema
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, ema, params)
