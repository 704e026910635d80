"""The first steps of the optimizer on a model that has not been trained: nothing is kept.

From an initial draw theta_0, on one batch, at a constant learning rate without warm-up:

    theta_t = theta_(t-1) + rho * peak * u_t,   t = 1 .. T

``u_t`` is the direction of the config's optimizer, ``peak`` its peak learning rate and ``rho`` one of
`RATES`. A network whose first layers get no gradient, that forgets its input with depth, or whose
output jumps about, does not learn to tell the classes apart in these steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.config import OptimizerConfig
from resnorm_jax.lab.trainer import descent, over
from resnorm_jax.training.model_state import at_step, split
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.step import Batch
from resnorm_jax.training.unit_weights import normalize_weights

STEPS = 16
# Multiples of the peak learning rate. At 4 times, 16 steps go as far as training does in 64.
RATES: tuple[float, ...] = (1.0, 4.0)
# Drawing parameters is a program that runs once: a third of the time to compile.
_QUICK = {"xla_backend_optimization_level": 0}


@dataclass(frozen=True)
class Probe:
    """What was seen over S draws of the parameters, R rates and T steps.

    Attributes:
      loss: ``[S, R, T + 1]``, before the first step and after each, in nats.
      agreement: ``[S, R, T + 1]``, of the logits with the labels: see `agreement`.
      gradient: ``[S, N]``, norm of the gradient of each layer's parameters before the first step.
      alike: ``[S]``, mean cosine between the pooled outputs of different rows before the first step;
        1 when the network says the same whatever it is shown.
    """

    loss: np.ndarray
    agreement: np.ndarray
    gradient: np.ndarray
    alike: np.ndarray


def make_probe(
    init: Callable[..., Any],
    apply: Callable[..., Any],
    config: OptimizerConfig,
    rates: tuple[float, ...] = RATES,
    steps: int = STEPS,
) -> Callable[[jax.Array, Batch], dict[str, jax.Array]]:
    """Return the measurement of one model: two compiled programs, one of them for the draws.

    Args:
      init: ``(key, x, mask) -> variables``.
      apply: ``(variables, x, mask) -> (logits [B, K], pooled [B, D])``, dropout off.
      config: the optimizer; its schedule and its warm-up are not read.
      rates: R multiples of its learning rate.
      steps: T.

    Returns:
      Function of the keys ``[S]`` of S draws and of the batch, which gives the fields of `Probe`.
    """

    def loss(params: Any, collections: Any, batch: Batch) -> tuple[jax.Array, Any]:
        logits, pooled = apply({"params": params, **collections}, batch["x"], batch.get("mask"))
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return jnp.sum(each * batch["weight"]) / jnp.sum(batch["weight"]), (logits, pooled)

    def draw(keys: jax.Array, batch: Batch) -> Any:
        drawn = over(lambda key: init(key, batch["x"], batch.get("mask")), keys, together=False)
        if config.unit_weights:
            drawn = {**drawn, "params": jax.vmap(normalize_weights)(drawn["params"])}
        return drawn

    def trial(variables: Any, rate: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        first, kept = split(variables)
        collections = at_step(kept, 0)
        optimizer = constant_rate(config, rate * config.learning_rate)

        def see(value: jax.Array, told: Any, gradient: Any) -> dict[str, jax.Array]:
            logits, pooled = told
            return {
                "loss": value,
                "agreement": agreement(logits, batch["y"], batch["weight"]),
                "gradient": layer_norms(gradient),
                "alike": mean_cosine(pooled, batch["weight"]),
            }

        step = descent(lambda params, _: loss(params, collections, batch), optimizer, see)
        return jax.lax.scan(step, (first, optimizer.init(first)), None, length=steps + 1)[1]

    def trials(drawn: Any, batch: Batch) -> dict[str, jax.Array]:
        def over_rates(variables: Any) -> dict[str, jax.Array]:
            return over(
                lambda rate: trial(variables, rate, batch), jnp.asarray(rates), together=False
            )

        seen = over(over_rates, drawn, together=False)
        # Before the first step all rates are the same.
        return seen | {name: seen[name][:, 0, 0] for name in ("gradient", "alike")}

    drawing, running = jax.jit(draw, compiler_options=_QUICK), jax.jit(trials)
    return lambda keys, batch: running(drawing(keys, batch), batch)


def constant_rate(config: OptimizerConfig, rate: Any) -> optax.GradientTransformation:
    """Return the config's optimizer at a constant learning rate, which may be traced."""
    plain = replace(config, learning_rate=rate, schedule="constant", warmup=0.0)
    return make_optimizer(plain, 1)[0]


def agreement(logits: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the correlation of logits ``[B, K]`` with one-hot labels, both less their means.

    ::

        r = <Z, Y> / (|Z| |Y|),  Z = logits less the mean over rows, then over classes;
                                 Y = one-hot labels less their mean over rows

    Neither a bias for some class nor the scale of the logits counts: only whether rows of one class
    are told from those of others. 0 where the logits do not depend on the row. Rows are weighted.
    After centred alignment (Cortes et al. 2012, JMLR 13, eq. 4), here of outputs, not kernels.
    """
    share = (weight / jnp.sum(weight))[:, None]

    def centred(z: jax.Array) -> jax.Array:
        return z - jnp.sum(share * z, axis=0)

    target = centred(jax.nn.one_hot(labels, logits.shape[-1]))
    z = centred(logits)
    z = z - jnp.mean(z, axis=-1, keepdims=True)
    z = z / jnp.maximum(jnp.max(jnp.abs(z)), jnp.finfo(z.dtype).tiny)  # squares must not overflow
    norm = jnp.sqrt(jnp.sum(share * z**2) * jnp.sum(share * target**2))
    return jnp.where(norm > 0, jnp.sum(share * z * target) / jnp.where(norm > 0, norm, 1), 0)


def layer_norms(gradient: Mapping[str, Any]) -> jax.Array:
    """Return the norm of each layer's part of a gradient, ``[N]``; ``[0]`` without an encoder."""
    encoder = gradient.get("encoder", {})
    stacks = sorted((n for n in encoder if n.partition("_")[0] == "layers"), key=_number)
    squares = [
        sum(jnp.sum(jnp.square(g.reshape(g.shape[0], -1)), axis=1) for g in jax.tree.leaves(stack))
        for stack in (encoder[name] for name in stacks)
    ]
    return jnp.sqrt(jnp.concatenate(squares)) if squares else jnp.zeros(0)


def _number(name: str) -> int:
    return int(name.partition("_")[2] or 0)


def mean_cosine(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Return the mean cosine between different rows of ``x [B, D]`` that have a weight.

    ::

        (|sum_i u_i|^2 - sum_i |u_i|^2) / ((sum_i w_i)^2 - sum_i w_i^2),  u_i = w_i x_i / |x_i|

    A row of zeros is like no other.
    """
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    unit = jnp.where(length > 0, x / jnp.where(length > 0, length, 1), 0)
    unit = unit * weight[:, None]
    pairs = jnp.sum(weight) ** 2 - jnp.sum(weight**2)
    return (jnp.sum(jnp.sum(unit, axis=0) ** 2) - jnp.sum(unit**2)) / pairs


def as_probe(found: Mapping[str, Any]) -> Probe:
    """Return a `Probe` of host arrays."""
    return Probe(**{name: np.asarray(value, np.float64) for name, value in found.items()})
