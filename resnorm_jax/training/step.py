"""One training step, as a pure function. The step is the only clock."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import flax.serialization
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import lax

from resnorm_jax.ops.keys import implementation, placed
from resnorm_jax.training import model_state
from resnorm_jax.training.learned import Kept as Parts
from resnorm_jax.training.learned import Learned, cut, join
from resnorm_jax.training.model_state import Kept, Params
from resnorm_jax.training.summing import summed
from resnorm_jax.training.tasks import SINGLE, Task

Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]
AxisName = str | tuple[str, ...] | None
NAMES = SINGLE.names
WEIGHTED = (*NAMES, "mass")  # where the classes have weights


class TrainState(flax.struct.PyTreeNode):
    """Everything that a run is: saved, restored, and equal to the bit afterwards.

    Attributes:
      step: updates done.
      key: the run's root key, as raw data; step k uses ``fold_in(key, k)``.
      params: parameters, float32.
      opt_state: the optimizer's state.
      ema: averaged parameters, or None.
      sums: metrics summed since the last logged step.
      collections: what the model keeps beside ``params``; see `model_state`. Equal on all devices.
    """

    step: jax.Array
    key: jax.Array
    params: Params
    opt_state: Any
    ema: Params | None
    sums: Sums
    collections: Kept = flax.struct.field(default_factory=dict)


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


class Objective(Protocol):
    """What a step makes smaller: ``loss`` over ``count``, two of the named sums."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sums."""

    def sums(self, out: Any, batch: Batch) -> Sums:
        """Return sums over a device's rows of what the model returned; rows have a ``weight``."""


@dataclass(frozen=True)
class StepOptions:
    """What a step is made of, apart from the state.

    ``guarded`` holds back an update that is not finite; without it such numbers go into the state.
    ``by_length`` tells the model a batch's lengths in place of its mask, so that NVIDIA's attention can
    serve. ``learned`` is what of the parameters has a gradient; None for all of them. ``task`` is what
    is asked of a row; ``objective`` is another loss than that of classes.
    """

    apply: Callable[..., Any]
    optimizer: optax.GradientTransformation
    label_smoothing: float = 0.0
    accumulate: int = 1
    ema: float | None = None
    log_every: int = 1
    guarded: bool = True
    by_length: bool = False
    learned: Learned | None = None
    class_weights: tuple[float, ...] | None = None
    objective: Objective | None = None
    task: Task = SINGLE

    @property
    def names(self) -> tuple[str, ...]:
        """The names of `sums`."""
        if self.objective is not None:
            return self.objective.names
        return self.task.names if self.class_weights is None else WEIGHTED

    def sums(self, out: Any, batch: Batch) -> Sums:
        """Return the sums over a device's rows of what the model made of them."""
        if self.objective is not None:
            return self.objective.sums(out, batch)
        return self.task.sums(
            out, batch["y"], batch["weight"], self.label_smoothing, self.class_weights
        )


def create_state(
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    seed: int | jax.Array,
    ema: float | None,
    names: tuple[str, ...] = NAMES,
) -> TrainState:
    """Return the state before the first update.

    Args:
      variables: what the model's ``init`` gives.
      optimizer: whose state is made.
      seed: of the run's root key.
      ema: whether averages are kept: their decay, or None.
      names: of the sums; see `StepOptions`.

    Raises:
      ValueError: if the model has a collection that the trainer does not know.
    """
    params, kept = model_state.split(variables)
    names = (*names, "grad_norm", "steps")
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(jax.random.key(seed)),
        params=params,
        opt_state=optimizer.init(params),
        ema=jax.tree.map(jnp.copy, params) if ema is not None else None,
        sums={name: jnp.zeros((), jnp.float32) for name in names},  # each its own: donated
        collections=model_state.at_step(kept, 0),
    )


def scored_variables(state: TrainState) -> dict[str, Any]:
    """Return the variables that are scored: averaged parameters where there are any.

    Running statistics are as they are: they are averages already.
    """
    params = state.params if state.ema is None else state.ema
    return {"params": params, **model_state.at_step(state.collections, state.step)}


def train_step(
    state: TrainState, batch: Batch, options: StepOptions, axis_name: str | None = None
) -> tuple[TrainState, Sums]:
    """Do one update; return the new state and the metrics summed since the last logged step.

    Among the metrics is ``finite``: whether the loss, the gradient's norm, the new parameters and what
    is kept beside them are. A guarded step that is not only counts: its state is the one before, but
    for ``step``, and its own metrics are left out.

    Args:
      state: replicated over ``axis_name``.
      batch: this device's rows: ``x``, ``y``, ``weight`` and, unless images, ``mask`` and
        ``lengths``. A model with running statistics gets a mask (or lengths) that leaves out the rows
        of weight 0, which fill a batch; for images it is ``[B, 1]``.
      options: model, optimizer and the rest.
      axis_name: the mapped axis over which rows are spread; None on a single device.

    The gradient is that of the mean over the global batch: sums over rows travel between devices
    and are divided by the sum of weights once, so that fillers and uneven devices count rightly.
    Each micro-batch has its own batch statistics, and the running ones move after each.
    """
    sums, gradient, kept = device_sums(state, batch, options, axis_name)
    if axis_name is not None:
        sums, gradient = summed((sums, gradient), axis_name)
    return updated_state(state, sums, gradient, kept, options)


def train_steps(
    state: TrainState, batches: Batch, options: StepOptions, axis_name: str | None = None
) -> tuple[TrainState, Sums]:
    """Do one update with each of several batches, as `train_step` does, in one program.

    Args:
      state: as of `train_step`.
      batches: of like shapes, stacked along a first axis.
      options: as of `train_step`.
      axis_name: likewise.

    Returns:
      The last state, and its metrics; ``finite [K]`` has the flag of each step.
    """

    def one(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        return train_step(state, batch, options, axis_name)

    state, each = lax.scan(one, state, dict(batches))
    last = {name: values[-1] for name, values in each.items()}
    return state, {**last, "finite": each["finite"]}


def device_sums(
    state: TrainState, batch: Batch, options: StepOptions, axis_name: AxisName = None
) -> tuple[Sums, Params, Kept]:
    """Return metrics and gradient, both summed over this device's rows, and what is kept after.

    Args:
      state: of which ``step``, ``key``, ``params`` and ``collections`` are read.
      batch: as of `train_step`.
      options: likewise.
      axis_name: the mapped axis, or axes, over which the batch's rows are spread.
    """
    if axis_name is None:
        keys = step_keys(state, options.accumulate)
    else:
        index, count = lax.axis_index(axis_name), lax.axis_size(axis_name)
        keys = step_keys(state, options.accumulate, index if count > 1 else 0, count)
    return _gradient_sums(state, told(batch, options.by_length), keys, options)


def step_keys(
    state: TrainState, micro: int, device: jax.Array | int | None = None, devices: int = 1
) -> Callable[[jax.Array | int], jax.Array]:
    """Return the key of each micro-batch of a device: a row draws the same on any number of devices.

    Args:
      state: of which ``step`` and ``key`` are read.
      micro: how many micro-batches a device's rows are cut into.
      device: which one this is; None where the step knows of no devices.
      devices: over which a batch's rows are spread in order.
    """
    root = jax.random.wrap_key_data(jnp.asarray(state.key), impl=implementation())
    key = jax.random.fold_in(root, state.step)
    if device is None:
        return lambda index: key if micro == 1 else jax.random.fold_in(key, index)
    key = jax.random.fold_in(key, 0)

    def of(index: jax.Array | int) -> jax.Array:
        part = device * micro + index  # of all parts of the batch
        own = key if micro == 1 else jax.random.fold_in(key, part // devices)
        return placed(own, part % devices)

    return of


def updated_state(
    state: TrainState, sums: Sums, gradient: Params, kept: Kept, options: StepOptions
) -> tuple[TrainState, Sums]:
    """Return the state after an update, and the metrics, as `train_step` does.

    Args:
      state: before it.
      sums: metrics over the rows of all devices.
      gradient: of the sum of the losses over the same rows.
      kept: what the model keeps beside its parameters, after the pass.
      options: of the step.
    """
    gradient = jax.tree.map(lambda g: g / divisor(sums), gradient)
    sums |= {"grad_norm": optax.tree.norm(gradient), "steps": jnp.ones((), jnp.float32)}
    parts = _parts(state.params, options)
    gradient = join(gradient, jax.tree.map(jnp.zeros_like, state.params), parts)
    updates, opt_state = options.optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    fresh = state.step % options.log_every == 0
    before = {name: jnp.where(fresh, 0, value) for name, value in state.sums.items()}
    updated = state.replace(
        params=params,
        opt_state=opt_state,
        ema=_averaged(state.ema, params, options.ema, parts),
        sums={name: before[name] + value for name, value in sums.items()},
        collections=kept,
    )
    finite = _all_finite((sums["loss"], sums["grad_norm"], params, kept))
    if options.guarded:
        # A branch, not a choice element by element: XLA joins that to the update and rounds otherwise.
        held = state.replace(sums=before)
        updated = lax.cond(finite, lambda new, old: new, lambda new, old: old, updated, held)
    return updated.replace(step=state.step + 1), {**updated.sums, "finite": finite}


def learned_part(params: Params, options: StepOptions) -> Params:
    """Return what of the parameters has a gradient, in the gradient's structure."""
    return cut(params, _parts(params, options))


def divisor(sums: Sums) -> jax.Array:
    """Return what a sum of losses is divided by: the rows, or the sum of their classes' weights."""
    if "mass" not in sums:
        return jnp.maximum(sums["count"], 1)
    return jnp.where(sums["mass"] > 0, sums["mass"], 1)


def told(batch: Mapping[str, Any], by_length: bool) -> dict[str, Any]:
    """Return a batch with its mask alone or, where it has them and they are asked for, its lengths."""
    left_out = "mask" if by_length and "lengths" in batch else "lengths"
    return {name: value for name, value in batch.items() if name != left_out}


def predict_step(
    variables: Mapping[str, Any],
    batch: Batch,
    apply: Callable[..., jax.Array],
    log_probs: Callable[[jax.Array], jax.Array] = SINGLE.log_probs,
) -> jax.Array:
    """Return log-probabilities ``[B, K]`` of this device's rows, dropout off."""
    logits = apply(variables, batch["x"], **model_state.validity(batch), deterministic=True)
    return log_probs(logits)


def _gradient_sums(
    state: TrainState, batch: Batch, keys: Callable[[Any], jax.Array], options: StepOptions
) -> tuple[Sums, Params, Kept]:
    """Return metrics and gradient, both summed over this device's rows, and what is kept after."""

    def one(kept: Kept, part: Batch, part_key: jax.Array) -> tuple[Sums, Params, Kept]:
        def loss(out: Any) -> tuple[jax.Array, Sums]:
            sums = options.sums(out, part)
            return sums["loss"], sums

        grads, sums, kept = model_state.gradient(apply, loss, learned, kept, part, part_key)
        return sums, grads, kept

    parts = _parts(state.params, options)
    learned = cut(state.params, parts)

    def apply(variables: Mapping[str, Any], *args: Any, **how: Any) -> Any:
        params = join(variables["params"], state.params, parts)
        return options.apply({**variables, "params": params}, *args, **how)

    kept = model_state.at_step(state.collections, state.step)
    if options.accumulate == 1:
        return one(kept, batch, keys(0))

    def more(carry, inputs):
        total, kept = carry
        part, index = inputs
        *found, kept = one(kept, part, keys(index))
        return (jax.tree.map(jnp.add, total, tuple(found)), kept), None

    count = options.accumulate
    micro = jax.tree.map(lambda a: a.reshape(count, -1, *a.shape[1:]), dict(batch))
    zeros = {name: jnp.zeros((), jnp.float32) for name in options.names}
    start = (zeros, jax.tree.map(jnp.zeros_like, learned))
    ((sums, grads), kept), _ = lax.scan(more, (start, kept), (micro, jnp.arange(count)))
    return sums, grads, kept


def _parts(params: Params, options: StepOptions) -> Parts | None:
    return None if options.learned is None else options.learned(params)


def _all_finite(tree: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


def _averaged(
    ema: Params | None, params: Params, decay: float | None, parts: Parts | None
) -> Params | None:
    """Return the averages; of what is frozen the parameters themselves, which rounding would move."""
    if ema is None or decay is None:
        return ema
    part = jax.tree.map(
        lambda a, p: decay * a + (1 - decay) * p, cut(ema, parts), cut(params, parts)
    )
    return join(part, params, parts)
