"""Where a step stopped being finite: the step once more, without `jax.pmap`, every module watched."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.build import DEVICE_AXIS
from resnorm_jax.modules.observe import Point, Watch, points, watched, zero_taps
from resnorm_jax.training import model_state
from resnorm_jax.training.step import StepOptions, TrainState, divisor, step_keys

Seen = list[tuple[Point, np.ndarray]]
HALVES = (jnp.bfloat16, jnp.float16)


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
      phase: ``"forward"``, ``"loss"``, ``"backward"``, ``"gradient norm"``, ``"update"``, ``"state"``
        or ``"none"``, when all is finite this time.
      place: in words, with the module's path; layers count from 1.
      rows: positions in the batch, ``[R]``; empty where the rows cannot be told apart.
      point: of the model; None where it is no module's input or output.
    """

    phase: str
    place: str
    rows: np.ndarray
    point: Point | None = None


@dataclass(frozen=True)
class Pass:
    """A step, watched: points in the order of the forward pass, with their bad rows ``[B]``."""

    forward: Seen
    backward: Seen
    losses: np.ndarray
    gradient: Any
    kept: Any


def examine(options: StepOptions, state: TrainState, batch: Any, devices: int) -> Finding:
    """Find where a step stopped being finite.

    Args:
      options: of the step.
      state: before it.
      batch: the global batch.
      devices: over which its rows are spread.
    """
    seen = watch_step(options, state, batch, devices)
    steps = (_in_forward, _in_loss, _in_backward, partial(_in_update, options, state))
    for look in steps:
        found = look(seen)
        if found is not None:
            return found
    return Finding("none", "nothing when done again", np.zeros(0, int))


def watch_step(options: StepOptions, state: TrainState, batch: Any, devices: int) -> Pass:
    """Do the forward and backward pass of a step; see `Pass`."""
    size, count = len(batch["y"]), options.accumulate
    rows = size // devices // count
    # As the step cuts them: by device, then by micro-batch.
    position = np.arange(size).reshape(devices, count, rows)

    def key(device: jax.Array, index: int) -> jax.Array:
        return step_keys(state, count, device, devices)(index)

    kept = model_state.at_step(state.collections, state.step)
    watch = Watch(rows)
    passes = jax.jit(partial(_one, options, watch, state.params))
    parts = []
    for index in range(count):
        part = {k: jnp.asarray(v)[position[:, index]] for k, v in dict(batch).items()}
        own = jax.vmap(partial(key, index=index))(jnp.arange(devices))
        *found, kept = passes(kept, part, own)
        parts.append(jax.tree.map(np.asarray, found))

    def joined(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *a: _in_order(a, position), *trees)

    flags, taps, losses, summed = zip(*parts, strict=True)
    total, sums = jax.tree.map(lambda *g: reduce(operator.add, g), *summed)
    counted = np.asarray(divisor(sums))
    return Pass(
        points(watch, joined(list(flags))),
        points(watch, joined(list(taps))),
        _in_order(losses, position),
        jax.tree.map(lambda g: g / counted, total),
        kept,
    )


def _one(options: StepOptions, watch: Watch, params: Any, kept: Any, part: Any, keys: Any) -> Any:
    """Return flags, the taps' gradient, losses by row, gradient and sums, what is kept."""

    def run(kept: Any, part: Mapping[str, jax.Array], key: jax.Array) -> Any:
        def loss(out: Any) -> tuple[jax.Array, Any]:
            logits, flags = out
            by_row = jax.vmap(partial(_loss_of_row, options))(logits, dict(part))
            sums = options.sums(logits, part)
            return sums["loss"], (flags, by_row, sums)

        taps = zero_taps(
            options.apply, watch, {**kept, "params": params}, part["x"], part.get("mask"),
            deterministic=False, rngs={"dropout": key},
        )  # fmt: skip
        learned = {"params": params, "taps": taps}
        apply = watched(options.apply, watch)
        gradient, (flags, by_row, sums), new = model_state.gradient(
            apply, loss, learned, kept, part, key
        )
        return flags, gradient["taps"], by_row, (gradient["params"], sums), new

    mapped = jax.vmap(run, (None, 0, 0), axis_name=DEVICE_AXIS)
    flags, taps, losses, summed, new = mapped(kept, part, keys)
    summed = jax.tree.map(lambda g: g.sum(0), summed)
    return flags, taps, losses, summed, jax.tree.map(lambda a: a[0], new)


def _loss_of_row(options: StepOptions, out: Any, row: Any) -> jax.Array:
    one = jax.tree.map(lambda a: a[None], (out, row))
    return options.sums(*one)["loss"]


def _in_order(parts: Any, position: np.ndarray) -> np.ndarray:
    """Join micro-batches' ``[devices, ..., rows]`` to ``[..., B]``, rows as in the batch."""
    out = np.zeros((*parts[0].shape[1:-1], position.size), parts[0].dtype)
    for index, part in enumerate(parts):
        out[..., position[:, index].ravel()] = np.moveaxis(part, 0, -2).reshape(
            *part.shape[1:-1], -1
        )
    return out


def _in_forward(seen: Pass) -> Finding | None:
    first = next(((p, rows) for p, rows in seen.forward if rows.any()), None)
    if first is None:
        return None
    point, rows = first
    return Finding("forward", place_of(point, "out"), np.flatnonzero(rows), point)


def _in_loss(seen: Pass) -> Finding | None:
    rows = np.flatnonzero(~np.isfinite(seen.losses))
    if len(rows):
        return Finding("loss", "the loss of finite logits", rows)
    if np.isfinite(seen.losses.sum(dtype=np.float32)):
        return None
    return Finding("loss", "the sum of finite losses", np.zeros(0, int))


def _in_backward(seen: Pass) -> Finding | None:
    first = next(((p, rows) for p, rows in reversed(seen.backward) if rows.any()), None)
    if first is not None:
        point, rows = first
        return Finding("backward", place_of(point, "in"), np.flatnonzero(rows), point)
    name = first_bad_leaf(seen.gradient)
    none = np.zeros(0, int)
    if name is not None:
        return Finding("backward", f"the gradient of {name}", none)
    if not np.isfinite(float(optax.tree.norm(seen.gradient))):
        return Finding("gradient norm", "the norm of a finite gradient", none)
    return None


def _in_update(options: StepOptions, state: TrainState, seen: Pass) -> Finding | None:
    updates, _ = options.optimizer.update(seen.gradient, state.opt_state, state.params)
    name = first_bad_leaf(optax.apply_updates(state.params, updates))
    if name is not None:
        return Finding("update", f"the update of {name}", np.zeros(0, int))
    name = first_bad_leaf(seen.kept)
    if name is None:
        return None
    return Finding("state", f"what is kept in {name}", np.zeros(0, int))


def first_bad_leaf(tree: Any) -> str | None:
    """Return the path of the first leaf that is not finite, with its layer where it has layers."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        value = np.asarray(leaf)
        if not np.issubdtype(value.dtype, np.inexact) or np.isfinite(value).all():
            continue
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "layers" not in name or not value.ndim:
            return name
        by_layer = np.isfinite(value.reshape(len(value), -1)).all(1)
        return f"{name}, layer {int(by_layer.argmin()) + 1} of {len(value)}"
    return None


def place_of(point: Point, own: str) -> str:
    """Say where a point is.

    Args:
      point: the first that is not finite.
      own: the side that is the module's own doing: what it returns, in the forward pass, and the
        gradient with respect to what it was given, in the backward pass. On the other side, what went
        wrong stands beside the module, in its parent.
    """
    if not point.path and point.side == "in":
        return "the batch"
    path = "/".join(point.path) or "the model"
    if point.side != own:
        parent = "/".join(point.path[:-1]) or "the model"
        way = "before" if point.side == "in" else "after"
        inside = _WITHIN.get((point.path[-1] if point.path else "", way), "")
        path = f"{parent}, {inside}{way} its {point.path[-1]}" if point.path else "the loss"
    if point.layer is None:
        return path
    names = [n for n in point.path if n.split("_")[0] != "layers"]
    inner = point.path[[n.split("_")[0] == "layers" for n in point.path].index(True) + 1 :]
    sublayer = inner[0] if inner else names[-1]
    return f"layer {point.layer}, {sublayer}: {path}"


# What stands between modules, by the module beside it:
_WITHIN = {
    ("out", "before"): "the attention logits or weights, ",
    ("query", "after"): "the attention, ",
    ("key", "after"): "the attention, ",
    ("value", "after"): "the attention, ",
}


def in_float32(apply: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the ``apply`` of the same model computing in float32; None if it does so already."""
    module = getattr(apply, "__self__", None)
    if not isinstance(module, nn.Module):
        return None
    widened = _widened(module)
    return None if widened is module else widened.apply


def _widened(module: nn.Module) -> nn.Module:
    changes: dict[str, Any] = {}
    for field in fields(module):  # type: ignore[arg-type]
        value = getattr(module, field.name, None)
        if field.name == "dtype" and value is not None and jnp.dtype(value) in HALVES:
            changes["dtype"] = jnp.float32
        elif isinstance(value, nn.Module) and field.name != "parent":
            changes[field.name] = _widened(value)
    changes = {k: v for k, v in changes.items() if v is not getattr(module, k)}
    return module.clone(**changes) if changes else module


def finite_in_float32(
    options: StepOptions, state: TrainState, batch: Any, devices: int, point: Point
) -> bool:
    """Return whether a point of the forward pass is finite when all is computed in float32."""
    apply = in_float32(options.apply)
    if apply is None:
        return False
    seen = watch_step(replace(options, apply=apply), state, batch, devices)
    return not dict(seen.forward)[point].any()
