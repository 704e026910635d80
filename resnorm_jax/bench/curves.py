"""The losses of one model in bfloat16, by kernels and by XLA, beside those in float32."""

from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.bench.cases import Model
from resnorm_jax.bench.model import initial_parameters, our_model, random_batch
from resnorm_jax.bench.step_speed import our_state
from resnorm_jax.bench.ways import compiler_options, defaults, step_options
from resnorm_jax.ops.norms.kernels.primitive import in_operations
from resnorm_jax.training.determinism import traced_for
from resnorm_jax.training.step import train_step

BATCHES = 4  # that the model sees again and again: it learns them
USUAL, BY_XLA, EXACT = "as by default", "by XLA", "float32 by XLA"


def curves_row(model: Model, steps: int) -> dict[str, Any]:
    """Train three times on the same rows from the same parameters.

    Args:
      model: sizes and dtype, of half precision.
      steps: updates.

    Returns:
      ``losses`` of each way, a list each; ``distance``, the root of the mean square of what the losses
      in half precision are off by from those in float32: that of XLA's operations is the noise, what
      the dtype alone costs.
    """
    losses = {
        USUAL: _losses(model, model.dtype, steps),
        BY_XLA: _losses(model, model.dtype, steps, attention="xla", kernels=False),
        EXACT: _losses(model, "float32", steps, attention="xla", kernels=False),
    }
    exact = np.array(losses[EXACT])
    distance = {
        name: float(np.sqrt(np.mean((np.array(found) - exact) ** 2)))
        for name, found in losses.items()
        if name != EXACT
    }
    return {
        "key": model.key, "model": model.name, "dtype": model.dtype, "size": asdict(model.size),
        "steps": steps, "defaults": defaults(model), "losses": losses, "distance": distance,
    }  # fmt: skip


def _losses(
    model: Model, dtype: str, steps: int, kernels: bool = True, **encoder: Any
) -> list[float]:
    size = model.size
    options = step_options(our_model(size, jnp.dtype(dtype), None, **encoder).apply)

    def step(state: Any, batch: Any) -> Any:
        if kernels:
            return train_step(state, batch, options)
        with in_operations():
            return train_step(state, batch, options)

    told = compiler_options()
    run = jax.jit(traced_for(told, step), donate_argnums=0, compiler_options=told)
    state, found = our_state(initial_parameters(size)), []
    batches = [jax.device_put(random_batch(size, seed)) for seed in range(BATCHES)]
    for number in range(steps):
        state, metrics = run(state, batches[number % BATCHES])
        found.append(metrics["loss"] / metrics["count"])
    return [float(loss) for loss in found]
