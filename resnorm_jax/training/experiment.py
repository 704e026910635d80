"""A whole run: data, model, every seed, scores, files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from resnorm_jax.build import build_model, check_names
from resnorm_jax.config import Config
from resnorm_jax.data import describe, length_buckets
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.reporting.tables import model_summary, runtime_line
from resnorm_jax.training.checkpoint import params_sha256
from resnorm_jax.training.devices import DataParallel, choose_devices
from resnorm_jax.training.evaluation import evaluate
from resnorm_jax.training.initial import first_variables
from resnorm_jax.training.loop import Outcome, Run, train_seed
from resnorm_jax.training.memory import memory_told
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.report import make_report, write_report
from resnorm_jax.training.run_data import data_line, prepare_data, scored_rows, total_steps
from resnorm_jax.training.run_directory import open_run
from resnorm_jax.training.step import StepOptions, TrainState, create_state
from resnorm_jax.training.watchdog import Watchdog


def run_experiment(
    config: Config,
    workdir: Path,
    console: Console,
    parallel: Callable[[StepOptions, list[Any]], DataParallel] = DataParallel,
) -> dict[str, Any]:
    """Train and score every seed of a config; return the report that is also written.

    Args:
      config: of the run.
      workdir: its directory.
      console: where to print.
      parallel: makes what runs the steps, e.g. one that also times them.

    Raises:
      UserError: for a mistake in the config, the data or the work directory. Nothing is
        overwritten.
      DivergedError: when a loss is not finite.
    """
    console.print(runtime_line(), highlight=False)
    check_names(config.model)
    train = config.train
    devices = choose_devices(config.devices, train.batch_size, train.accumulate)
    dataset = prepare_data(config)
    meta = describe(dataset)
    model = build_model(config, meta)
    buckets = length_buckets(dataset.train.lengths, train.buckets)
    steps = total_steps(config, dataset, buckets)
    optimizer, schedule = make_optimizer(config.optimizer, steps)
    first = partial(first_variables, config, model, dataset, buckets)
    # Before anything is written: a norm that does not fit its slot is found when it is made.
    jax.eval_shape(lambda: first(config.seed))
    open_run(workdir, config, meta, devices)

    options = StepOptions(
        model.apply, optimizer, train.label_smoothing, train.accumulate, train.ema, train.log_every
    )
    runner, log = parallel(options, devices), MetricsLog(workdir / "metrics.jsonl")
    watchdog = Watchdog(train.watchdog)
    run = Run(train, dataset, runner, schedule, buckets, workdir, log, console, watchdog)
    console.print(data_line(dataset), highlight=False)
    scores = []

    def state_of(seed: int, variables: Any) -> TrainState:
        return create_state(variables, optimizer, seed, train.ema)

    with watchdog, memory_told(config, run, lambda: state_of(config.seed, first(config.seed))):
        for seed in range(config.seed, config.seed + config.seeds):
            watchdog.doing(f"seed {seed} was initialized")
            variables = first(seed)
            if seed == config.seed:
                model_summary(variables["params"], console)
            state = state_of(seed, variables)
            scores.append(_scores(run, seed, train_seed(run, seed, state, steps)))
    report = make_report(config, dataset, scores, runner.programs)
    write_report(report, workdir, log, console)
    return report


def _scores(run: Run, seed: int, outcome: Outcome) -> dict[str, Any]:
    """Return what the report says of one seed."""
    rows = scored_rows(run.dataset, run.train.score)
    size, classes = run.train.batch_size, run.dataset.classes
    return {
        "seed": seed,
        "step": outcome.step,
        "params_sha256": params_sha256(outcome.params),
        "train_seconds": round(outcome.seconds, 3),
        "examples_per_second": outcome.examples_per_second,
        **outcome.counts,
        **evaluate(
            run.parallel, outcome.variables, rows, classes, size, run.buckets, run.watchdog.doing
        ),
    }
