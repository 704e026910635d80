"""The lab's one trainer of many runs: a loop over steps, and a grid of such loops in one program.

A `Step` takes a state and what that step is given; it returns the next state and what was seen.
`descent` makes one of any loss, `training` is the trainer's own. `jax.lax.scan` or `scan_and_look`
makes a run of steps, `over` a grid of runs: over seeds, learning rates or whatever else.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from resnorm_jax.training.step import Batch, StepOptions, TrainState, train_step

Step = Callable[[Any, Any], tuple[Any, Any]]
Loss = Callable[[Any, Any], tuple[jax.Array, Any]]


def descent(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    see: Callable[[jax.Array, Any, Any], Any] = lambda value, aux, gradient: value,
) -> Step:
    """Return the step of parameters and optimizer state under any loss.

    Args:
      loss: parameters and what the step is given, to the loss and whatever else it tells.
      optimizer: whose state is carried beside the parameters.
      see: loss, what else it told, and gradient, to what is kept of the step.
    """

    def step(carry: tuple[Any, Any], given: Any) -> tuple[tuple[Any, Any], Any]:
        params, state = carry
        (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(params, given)
        updates, state = optimizer.update(gradient, state, params)
        seen = see(value, aux, gradient)
        return (optax.apply_updates(params, updates), state), seen

    return step


def training(options: StepOptions, axis_name: str | None = None) -> Step:
    """Return the trainer's own step, of a batch: it sees the mean loss.

    It is not guarded: a run that diverges stays so, and its numbers say it.

    Args:
      options: of the step.
      axis_name: of the mapped axis that the model's norms and the dropout ask for, here of length 1.
    """
    options = replace(options, guarded=False)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        if axis_name is None:
            new, sums = train_step(state, batch, options)
        else:
            mapped = jax.vmap(
                partial(train_step, options=options, axis_name=axis_name),
                in_axes=(None, 0), axis_name=axis_name,
            )  # fmt: skip
            one = jax.tree.map(lambda a: a[None], batch)
            new, sums = jax.tree.map(lambda a: a[0], mapped(state, one))
        return new, sums["loss"] / sums["count"]

    return step


def scan_and_look(
    step: Step, state: Any, given: jax.Array, every: int, look: Callable[[Any], Any]
) -> tuple[Any, Any, Any]:
    """Scan a step over what is given, and look at the state now and then.

    Args:
      step: of a `Step`.
      state: before.
      given: ``[T]``, one for each step.
      every: steps between two looks.
      look: state to what is to be looked at.

    Returns:
      State after; what each step saw, ``[T, ...]``; the looks, ``[T / every + 1, ...]``: at the start,
      then after every so many steps.

    Raises:
      ValueError: if ``every`` does not divide the number of steps.
    """
    steps = len(given)
    if steps % every:
        raise ValueError(f"every={every} does not divide steps={steps}")

    def some(state: Any, part: Any) -> tuple[Any, Any]:
        state, seen = jax.lax.scan(step, state, part)
        return state, (seen, look(state))

    start = look(state)
    state, (seen, looks) = jax.lax.scan(some, state, given.reshape(-1, every))
    looks = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, looks)
    return state, jax.tree.map(lambda a: a.reshape(steps, *a.shape[2:]), seen), looks


def over(function: Callable[..., Any], *given: Any, together: bool) -> Any:
    """Return a function of each slice of all arguments: ``together`` by `jax.vmap`, or in turn.

    On a CPU, where one run fills a core, in turn is as fast and compiles in half the time.
    """
    if together:
        return jax.vmap(function)(*given)
    return jax.lax.map(lambda each: function(*each), given)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the batch, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def drawn_rows(key: jax.Array, step: Any, rows: int, batch: int) -> jax.Array:
    """Indices of a step's batch, drawn with replacement."""
    return jax.random.randint(jax.random.fold_in(key, step), (batch,), 0, rows)


def rows_of_step(root: jax.Array, step: jax.Array, rows: int, batch: int) -> jax.Array:
    """Indices of a batch: epochs are permutations, whose last ``rows % batch`` rows are left out."""
    per_epoch = rows // batch
    order = jax.random.permutation(jax.random.fold_in(root, step // per_epoch), rows)
    return jax.lax.dynamic_slice(order, (step % per_epoch * batch,), (batch,))
