"""A tiny run that compiles in seconds: shared by the training tests."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console

from resnorm_jax.build import build_model
from resnorm_jax.config import experiment, from_dict
from resnorm_jax.data import describe
from resnorm_jax.data.dataset import Dataset, Examples
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.training.devices import DataParallel
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.loop import Run
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.recipe import step_options, with_low_rank
from resnorm_jax.training.step import StepOptions, create_state


def dataset(rows: int = 44, channels: int = 3, classes: int = 3, seed: int = 0) -> Dataset:
    """Random walks of several lengths whose class shifts their drift."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> Examples:
        y = np.arange(count, dtype=np.int32) % classes
        lengths = rng.integers(3, 9, count).astype(np.int32)
        x = rng.normal(size=(count, 8, channels)) + y[:, None, None]
        x = np.where(np.arange(8)[None, :, None] < lengths[:, None, None], x, 0)
        return Examples(x.astype(np.float32), lengths, y)

    names = tuple("abc"[:classes])
    return Dataset("walks", "features", split(rows), split(rows // 2), names, valid=split(10))


def config(**train):
    """A config of one small layer; keyword arguments go to ``train``, or ``optimizer``/``model``."""
    model = {"width": 8, "depth": 2, "heads": 2, "dropout": 0.0, **train.pop("model", {})}
    optimizer = {"learning_rate": 1e-2, **train.pop("optimizer", {})}
    values = experiment(
        data={"source": "sample_text"},
        model=model,
        optimizer=optimizer,
        train={"batch_size": 16, "log_every": 1, "buckets": 2, **train},
    )
    return from_dict(values.to_dict())


def parts(made, data, devices: int = 1, steps: int = 20):
    """Return ``(parallel, state, options)`` of a config on some devices."""
    model = build_model(made, describe(data))
    optimizer, schedule = make_optimizer(made.optimizer, steps)
    options = StepOptions(
        model.apply,
        optimizer,
        made.train.label_smoothing,
        made.train.accumulate,
        made.train.ema,
        made.train.log_every,
    )
    variables = init_variables(model, data, (5, 8), 0)
    state = create_state(variables, optimizer, 0, made.train.ema)
    parallel = DataParallel(options, jax.local_devices()[:devices])
    return parallel, parallel.replicate(state), options, schedule


def started(made, data=None):
    """The step's options and the first state of a config."""
    data = data or dataset()
    model = build_model(made, describe(data))
    optimizer, _ = make_optimizer(made.optimizer, 20)
    options = step_options(model, made.optimizer, made.train, optimizer, None)
    variables = with_low_rank(made.optimizer, init_variables(model, data, (5, 8), 0), 0)
    return model, options, create_state(variables, optimizer, 0, made.train.ema, options.names)


def batch_of(data):
    rows = data.train.take(np.arange(8))
    mask = np.arange(8) < rows.lengths[:, None]
    return {"x": rows.x, "y": rows.y, "weight": np.ones(8, np.float32), "mask": mask}


def run(made, data, workdir, devices: int = 1, steps: int = 20):
    """Return ``(run, state)`` as `run_experiment` makes them."""
    parallel, state, _, schedule = parts(made, data, devices, steps)
    log = MetricsLog(workdir / "metrics.jsonl")
    quiet = Console(quiet=True)
    return Run(made.train, data, parallel, schedule, (5, 8), workdir, log, quiet), state


def linear(devices: int = 1, **how):
    """Return ``(parallel, state, batch, bytes of the gradient)`` of a model of one layer."""
    params = {
        "w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)), jnp.float32),
        "b": jnp.zeros(5),
    }

    def apply(variables, x, mask=None, deterministic=True, rngs=None):
        return jnp.tanh(x.mean(1)) @ variables["params"]["w"] + variables["params"]["b"]

    optimizer = optax.adamw(1e-2)
    parallel = DataParallel(StepOptions(apply, optimizer), jax.local_devices()[:devices], **how)
    rows = np.random.default_rng(1).normal(size=(16, 4, 3)).astype(np.float32)
    batch = {
        "x": rows,
        "y": (np.arange(16) % 5).astype(np.int32),
        "weight": np.ones(16, np.float32),
        "mask": np.ones((16, 4), bool),
    }
    state = parallel.replicate(create_state({"params": params}, optimizer, 0, None))
    return parallel, state, batch, sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def compiled(parallel, state, batch) -> str:
    """The training step as XLA has it in the end."""
    return parallel._train.lower(state, parallel._spread(batch)).compile().as_text()
