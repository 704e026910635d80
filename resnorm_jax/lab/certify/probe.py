"""What one step of the optimizer would do to a model that has not been trained: nothing is kept.

The optimizer's first direction u is taken on a batch, and the model is run along it:

    theta(a) = theta_0 + a * peak * u

``a`` is a share of the config's peak learning rate. A network whose first layers get no gradient, that
forgets its input with depth, or whose output jumps about, does not learn to tell the classes apart by
such a step, however long or short it is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from resnorm_jax.config import OptimizerConfig
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.step import Batch, at_step

# Shares of the peak learning rate at which the loss is measured.
SHARES: tuple[float, ...] = tuple(2.0**k for k in range(-10, 6))


@dataclass(frozen=True)
class Probe:
    """What was seen at initialization, over S draws of the parameters.

    Attributes:
      loss: ``[S]``, before.
      along: ``[S, len(SHARES)]``, the loss at each share of the peak rate.
      agreement: ``[S, len(SHARES)]``, of the logits with the labels there: see `agreement`.
      gradient: ``[S, N]``, norm of the gradient of each layer's parameters.
      alike: ``[S]``, mean cosine between the pooled outputs of different rows; 1 when the network
        says the same whatever it is shown.
    """

    loss: np.ndarray
    along: np.ndarray
    agreement: np.ndarray
    gradient: np.ndarray
    alike: np.ndarray


def direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return the config's optimizer at learning rate 1, without warm-up: updates are directions."""
    plain = replace(config, learning_rate=1.0, schedule="constant", warmup=0.0)
    return make_optimizer(plain, 1)[0]


def make_probe(
    init: Callable[..., Any],
    apply: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    peak: float,
) -> Callable[[jax.Array, Batch], dict[str, jax.Array]]:
    """Return the compiled measurement of one model.

    Args:
      init: ``(key, x, mask) -> variables``.
      apply: ``(variables, x, mask) -> (logits [B, K], pooled [B, D])``, dropout off.
      optimizer: of `direction`.
      peak: the learning rate that share 1 stands for.

    Returns:
      Function of the keys ``[S]`` of S draws and of the batch, which gives the fields of `Probe`.
    """

    def loss(params: Any, collections: Any, batch: Batch) -> tuple[jax.Array, Any]:
        logits, pooled = apply({"params": params, **collections}, batch["x"], batch.get("mask"))
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return jnp.sum(each * batch["weight"]) / jnp.sum(batch["weight"]), (logits, pooled)

    def draw(key: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        variables = dict(init(key, batch["x"], batch.get("mask")))
        params, collections = variables.pop("params"), at_step(variables, 0)
        gradient, (_, pooled) = jax.grad(loss, has_aux=True)(params, collections, batch)
        update, _ = optimizer.update(gradient, optimizer.init(params), params)

        def moved(share: jax.Array) -> tuple[jax.Array, jax.Array]:
            there = jax.tree.map(lambda p, u: p + share * peak * u, params, update)
            found, (logits, _) = loss(there, collections, batch)
            return found, agreement(logits, batch["y"], batch["weight"])

        losses, agreed = jax.lax.map(moved, jnp.asarray((0.0, *SHARES)))
        return {
            "loss": losses[0],
            "along": losses[1:],
            "agreement": agreed[1:],
            "gradient": layer_norms(gradient),
            "alike": mean_cosine(pooled, batch["weight"]),
        }

    return jax.jit(lambda keys, batch: jax.lax.map(lambda k: draw(k, batch), keys))


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
