"""What checkpoints cost: time to save and restore, bytes, and the share of training that it takes."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = {"digits' model": (64, 3), "a wide one": (512, 6)}  # width, depth
REPEATS = 5


def measure(quick: bool, seed: int, each) -> dict[str, Any]:
    """Save and restore the state of models of two sizes (the small one if quick)."""
    sizes = dict(list(SIZES.items())[:1]) if quick else SIZES
    found = {name: _cost(*size, seed) for name, size in each(list(sizes.items()), "cost")}
    return {"outcomes": {"found": len(found)}, "by_model": found}


def _cost(width: int, depth: int, seed: int) -> dict[str, float]:
    import jax
    import numpy as np

    from resnorm_jax.training.checkpoint import CheckpointStore

    run, state, total = _run(width, depth, seed)
    batch = next(iter(total))
    state = run.replicate(state)
    state, _ = jax.block_until_ready(run.train(state, batch))
    times = []
    for _ in range(REPEATS * 2):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(run.train(state, batch))
        times.append(time.perf_counter() - began)
    folder = Path(tempfile.mkdtemp(prefix="resnorm-cost-"))
    store = CheckpointStore(folder, 1)
    saving, restoring = [], []
    for step in range(1, REPEATS + 1):
        began = time.perf_counter()
        store.save(step, state, {"seconds": 0.0})
        saving.append(time.perf_counter() - began)
        began = time.perf_counter()
        store.restore(step, jax.tree.map(np.asarray, state))
        restoring.append(time.perf_counter() - began)
    on_disk = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    shutil.rmtree(folder)
    step_, save = statistics.median(times), statistics.median(saving)
    return {
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        "state_bytes": sum(x.nbytes for x in jax.tree.leaves(state)),
        "checkpoint_bytes": on_disk,
        "step_seconds": step_,
        "save_seconds": save,
        "restore_seconds": statistics.median(restoring),
        "share_of_time_saving_every_200_steps": save / (save + 200 * step_),
    }


def _run(width: int, depth: int, seed: int) -> tuple[Any, Any, Any]:
    """Return what runs the steps, a first state and batches of the digits."""
    import jax

    from resnorm_jax.build import build_model
    from resnorm_jax.config import experiment, from_dict
    from resnorm_jax.data import TrainBatches, describe, iterate, length_buckets
    from resnorm_jax.training.devices import DataParallel
    from resnorm_jax.training.initial import first_variables
    from resnorm_jax.training.optimizers import make_optimizer
    from resnorm_jax.training.run_data import prepare_data
    from resnorm_jax.training.step import StepOptions, create_state

    model = {"width": width, "depth": depth, "heads": 8}
    made = experiment(data={"source": "digits"}, model=model, train={"batch_size": 64})
    config = from_dict(made.to_dict())
    data = prepare_data(config)
    network = build_model(config, describe(data))
    buckets = length_buckets(data.train.lengths, 1)
    optimizer, _ = make_optimizer(config.optimizer, 100)
    state = create_state(
        first_variables(config, network, data, buckets, seed), optimizer, seed, None
    )
    parallel = DataParallel(StepOptions(network.apply, optimizer), jax.local_devices()[:1])
    batches = TrainBatches(data.train, 64, buckets, seed)
    return parallel, state, (batch for _, batch in iterate(batches, 0, 1))
