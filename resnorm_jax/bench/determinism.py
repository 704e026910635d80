"""Whether two runs of one seed end with the same bits: two processes, each compiling for itself."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.bench.cases import Model
from resnorm_jax.bench.memory import no_compilation_cache
from resnorm_jax.bench.model import Size, initial_parameters, random_batch
from resnorm_jax.bench.step_speed import our_state, our_step
from resnorm_jax.bench.ways import compiler_options
from resnorm_jax.training.checkpoint import params_sha256
from resnorm_jax.training.determinism import traced_for


def determinism_row(model: Model, steps: int) -> dict[str, Any]:
    """Train here and in another process from one seed; compare the bits of all parameters.

    Args:
      model: sizes and dtype; all else is the library's default.
      steps: updates, each on another batch.

    Returns:
      ``params_sha256`` and ``loss`` of both runs, ``equal``, and ``steps``.
    """
    runs = [trained(model, steps), _elsewhere(model, steps)]
    return {
        "key": model.key, "model": model.name, "dtype": model.dtype, "steps": steps,
        "size": asdict(model.size),
        "params_sha256": [run["params_sha256"] for run in runs],
        "loss": [run["loss"] for run in runs],
        "equal": runs[0] == runs[1],
    }  # fmt: skip


def trained(model: Model, steps: int) -> dict[str, Any]:
    """Return the hash of the parameters after some updates, and the last loss to all its digits."""
    size = model.size
    state = our_state(initial_parameters(size))
    with no_compilation_cache():
        options = compiler_options()
        step = jax.jit(
            traced_for(options, our_step(size, jnp.dtype(model.dtype), None)),
            donate_argnums=0,
            compiler_options=options,
        )
        for seed in range(steps):
            state, metrics = step(state, random_batch(size, seed))
    loss = float(metrics["loss"]) / float(metrics["count"])
    return {"params_sha256": params_sha256(jax.tree.map(np.asarray, state.params)), "loss": loss}


def _elsewhere(model: Model, steps: int) -> dict[str, Any]:
    """The same in a process of its own, with this one's environment."""
    command = [sys.executable, "-m", __name__, json.dumps([asdict(model), steps])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the second run ended with status {done.returncode}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def main(text: str) -> None:
    """Train what the text says, and print what came of it as JSON."""
    fields, steps = json.loads(text)
    model = Model(**{**fields, "size": Size(**fields["size"])})
    print(json.dumps(trained(model, steps)))


if __name__ == "__main__":
    main(sys.argv[1])
