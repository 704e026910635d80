"""A model's variables before training."""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.config import Config
from resnorm_jax.data import Dataset, TrainBatches
from resnorm_jax.training.unit_weights import normalize_weights

INIT_KEY = 2**31 - 1  # folded into the root key; steps are far below it
Variables = dict[str, Any]


def first_variables(
    config: Config, model: Any, dataset: Dataset, buckets: tuple[int, ...], seed: int
) -> Variables:
    """Return the variables that a run starts from: `init_variables`, on unit weights if asked."""
    variables = init_variables(model, dataset, buckets, seed)
    if not config.optimizer.unit_weights:
        return variables
    return {**variables, "params": normalize_weights(variables["params"])}


def init_variables(model: Any, dataset: Dataset, buckets: tuple[int, ...], seed: int) -> Variables:
    """Return what the model's ``init`` gives; it depends on the seed and the shapes only."""
    batch = TrainBatches(dataset.train, 1, buckets, 0).batch_at(0)
    key = jax.random.fold_in(jax.random.key(seed), INIT_KEY)
    x, mask = jnp.asarray(batch["x"]), batch.get("mask")
    return _compiled_init(model)(key, x, mask)


@lru_cache(maxsize=4)
def _compiled_init(model: Any) -> Any:
    """The init of a model, compiled once for all seeds of a run."""
    return jax.jit(partial(model.init, deterministic=True))


def variables_like(model: Any, meta: dict[str, Any]) -> Variables:
    """Return variables of the model's shapes, for data of which only ``meta`` is known."""
    shapes = {
        "features": (1, meta["max_length"], *meta["shape"]),
        "tokens": (1, meta["max_length"]),
        "images": (1, *meta["shape"]),
    }
    dtype = jnp.int32 if meta["kind"] == "tokens" else jnp.float32
    return model.init(jax.random.key(0), jnp.zeros(shapes[meta["kind"]], dtype))
