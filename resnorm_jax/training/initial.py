"""A model's variables before training."""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, TrainBatches
from resnorm_jax.interop.init_from import with_weights
from resnorm_jax.training.determinism import determinism
from resnorm_jax.training.keys import implementation
from resnorm_jax.training.unit_weights import normalize_weights

INIT_KEY = 2**31 - 1  # folded into the root key; steps are far below it
Variables = dict[str, Any]


def first_variables(
    config: Config, model: Any, dataset: Dataset, buckets: tuple[int, ...], seed: int
) -> Variables:
    """Return the variables that a run starts from.

    Those of `init_variables`, with the weights of ``config.init_from``, on unit weights if asked.
    """
    variables = init_variables(model, dataset, buckets, seed)
    if config.init_from is not None:
        variables = with_weights(config, model, variables).variables
    if not config.optimizer.unit_weights:
        return variables
    return {**variables, "params": normalize_weights(variables["params"])}


def init_variables(model: Any, dataset: Dataset, buckets: tuple[int, ...], seed: int) -> Variables:
    """Return what the model's ``init`` gives; it depends on the seed and the shapes only."""
    batch = TrainBatches(dataset.train, 1, buckets, 0).batch_at(0)
    key = _init_key(np.uint32(seed))
    # Where only shapes are asked for, this is traced: JAX takes no options of a program inside another.
    init = _plain_init(model) if isinstance(key, jax.core.Tracer) else _compiled_init(model)
    return init(key, batch["x"], batch.get("mask"))


@jax.jit
def _init_key(seed: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed, impl=implementation()), INIT_KEY)


@lru_cache(maxsize=4)
def _compiled_init(model: Any) -> Any:
    """The init of a model, compiled once for all seeds of a run."""
    options = dict(determinism(True, jax.default_backend()).options) or None
    return jax.jit(_plain_init(model), compiler_options=options)


def _plain_init(model: Any) -> Any:
    return partial(model.init, deterministic=True)


def variables_like(model: Any, meta: dict[str, Any]) -> Variables:
    """Return variables of the model's shapes, for data of which only ``meta`` is known."""
    shapes = {
        "features": (1, meta["max_length"], *meta["shape"]),
        "tokens": (1, meta["max_length"]),
        "images": (1, *meta["shape"]),
    }
    dtype = jnp.int32 if meta["kind"] == "tokens" else jnp.float32
    return model.init(jax.random.key(0), jnp.zeros(shapes[meta["kind"]], dtype))
