"""One training step, as a pure function. The step is the only clock."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import flax.serialization
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from resnorm_jax.training.losses import classification_sums

Batch = Mapping[str, jax.Array]
Params = Any
Sums = dict[str, jax.Array]
Collections = dict[str, Any]

# What a model may keep beside its parameters. Running statistics, which training updates:
STATISTICS = "batch_stats"
# Scalars named "step", float32, set to the number of updates done, for what changes over training:
SCHEDULE = "schedule"
# Flax's name for variables whose gradient, of the sum of the losses, is their next value:
OVERWRITE = "_overwrite_with_gradient"


class TrainState(flax.struct.PyTreeNode):
    """Everything that a run is: saved, restored, and equal to the bit afterwards.

    Attributes:
      step: updates done.
      key: the run's root key, as raw data; step k uses ``fold_in(key, k)``.
      params: parameters, float32.
      opt_state: the optimizer's state.
      ema: averaged parameters, or None.
      sums: metrics summed since the last logged step.
      collections: the model's variables beside ``params``: `STATISTICS`, `SCHEDULE` and
        `OVERWRITE`, where it has them. Equal on all devices.
    """

    step: jax.Array
    key: jax.Array
    params: Params
    opt_state: Any
    ema: Params | None
    sums: Sums
    collections: Collections = flax.struct.field(default_factory=dict)


def _to_state_dict(state: TrainState) -> dict[str, Any]:
    """As flax makes it, without empty collections: as checkpoints of versions without them are."""
    names = [f.name for f in fields(state) if f.name != "collections" or state.collections]
    return {name: flax.serialization.to_state_dict(getattr(state, name)) for name in names}


def _from_state_dict(state: TrainState, values: dict[str, Any]) -> TrainState:
    restore = flax.serialization.from_state_dict
    return state.replace(**{n: restore(getattr(state, n), v, n) for n, v in values.items()})


flax.serialization.register_serialization_state(
    TrainState, _to_state_dict, _from_state_dict, override=True
)


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
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    seed: int,
    ema: float | None,
) -> TrainState:
    """Return the state before the first update.

    Args:
      variables: what the model's ``init`` gives: ``params`` and, perhaps, `STATISTICS`,
        `SCHEDULE` and `OVERWRITE`.
      optimizer: whose state is made.
      seed: of the run's root key.
      ema: whether averages are kept: their decay, or None.

    Raises:
      ValueError: if the model has a collection that the trainer does not know.
    """
    collections = _without_params(variables)
    unknown = sorted(set(collections) - {STATISTICS, SCHEDULE, OVERWRITE})
    if unknown:
        raise ValueError(
            f"the model has the collection {unknown[0]!r}; the trainer knows params, {STATISTICS}, "
            f"{SCHEDULE} and {OVERWRITE}"
        )
    params = variables["params"]
    names = ("loss", "correct", "count", "grad_norm", "steps")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(jax.random.key(seed)),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if ema is not None else None,
        sums={name: jnp.zeros((), jnp.float32) for name in names},  # each its own: donated
        collections=at_step(collections, 0),
    )


def _without_params(variables: Mapping[str, Any]) -> Collections:
    return {name: tree for name, tree in variables.items() if name != "params"}


def at_step(collections: Collections, step: jax.Array | int) -> Collections:
    """Return the collections with every scalar of `SCHEDULE` set to the number of updates done."""
    if SCHEDULE not in collections:
        return collections
    told = jax.tree.map(lambda leaf: jnp.full_like(leaf, step), collections[SCHEDULE])
    return {**collections, SCHEDULE: told}


def scored_variables(state: TrainState) -> dict[str, Any]:
    """Return the variables that are scored: averaged parameters where there are any.

    Running statistics are as they are: they are averages already.
    """
    params = state.params if state.ema is None else state.ema
    return {"params": params, **at_step(state.collections, state.step)}


def train_step(
    state: TrainState, batch: Batch, options: StepOptions, axis_name: str | None = None
) -> tuple[TrainState, Sums]:
    """Do one update; return the new state and the metrics summed since the last logged step.

    Args:
      state: replicated over ``axis_name``.
      batch: this device's rows: ``x``, ``y``, ``weight`` and, unless images, ``mask``. A model with
        running statistics gets a mask that leaves out the rows of weight 0, which fill a batch; for
        images it is ``[B, 1]``.
      options: model, optimizer and the rest.
      axis_name: the mapped axis over which rows are spread; None on a single device.

    The gradient is that of the mean over the global batch: sums over rows travel between devices
    and are divided by the sum of weights once, so that fillers and uneven devices count rightly.
    Each micro-batch has its own batch statistics, and the running ones move after each.
    """
    sums, gradient, collections = _gradient_sums(state, batch, options, axis_name)
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
        collections=collections,
    )
    return state, sums


def predict_step(
    variables: Mapping[str, Any], batch: Batch, apply: Callable[..., jax.Array]
) -> jax.Array:
    """Return log-probabilities ``[B, K]`` of this device's rows, dropout off."""
    logits = apply(variables, batch["x"], batch.get("mask"), deterministic=True)
    return jax.nn.log_softmax(logits)


def _gradient_sums(state, batch, options: StepOptions, axis_name):
    """Return metrics, gradient and new collections; the first two summed over this device's rows."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    if axis_name is not None:
        key = jax.random.fold_in(key, lax.axis_index(axis_name))

    def loss(learned, collections, part, part_key):
        params, collections = learned["params"], collections | _without_params(learned)
        logits, collections = _logits(params, collections, part, part_key, options)
        sums = classification_sums(logits, part["y"], part["weight"], options.label_smoothing)
        return sums["loss"], (sums, collections)

    def gradient(params, collections, part, part_key):
        learned = {"params": params} | {k: v for k, v in collections.items() if k == OVERWRITE}
        grads, (sums, collections) = jax.grad(loss, has_aux=True)(
            learned, collections, part, part_key
        )
        return grads["params"], (sums, collections | _without_params(grads))

    collections = at_step(state.collections, state.step)
    if options.accumulate == 1:
        grads, (sums, collections) = gradient(state.params, collections, batch, key)
        return sums, grads, collections

    def one(carry, inputs):
        total, collections = carry
        part, index = inputs
        part_key = jax.random.fold_in(key, index)
        grads, (sums, collections) = gradient(state.params, collections, part, part_key)
        return (jax.tree.map(jnp.add, total, (sums, grads)), collections), None

    count = options.accumulate
    parts = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), dict(batch))
    zeros = {name: jnp.zeros((), jnp.float32) for name in ("loss", "correct", "count")}
    start = (zeros, jax.tree.map(jnp.zeros_like, state.params))
    ((sums, grads), collections), _ = lax.scan(
        one, (start, collections), (parts, jnp.arange(count))
    )
    return sums, grads, collections


def _logits(params, collections: Collections, part: Batch, key, options: StepOptions):
    """Run the model in training; return logits and the collections after it."""
    variables, rngs, mask = {"params": params, **collections}, {"dropout": key}, part.get("mask")
    if STATISTICS not in collections:
        logits = options.apply(variables, part["x"], mask, deterministic=False, rngs=rngs)
        return logits, collections
    real = part["weight"][:, None] > 0  # rows that fill a batch must not enter its statistics
    mask = real if mask is None else jnp.logical_and(mask, real)
    logits, new = options.apply(
        variables, part["x"], mask, deterministic=False, rngs=rngs, mutable=[STATISTICS]
    )
    return logits, {**collections, **new}


def _averaged(ema: Params | None, params: Params, decay: float | None) -> Params | None:
    if ema is None or decay is None:
        return ema
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, ema, params)
