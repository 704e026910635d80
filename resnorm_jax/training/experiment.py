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
from resnorm_jax.planning.unroll import loop_text
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.reporting.tables import model_summary, runtime_line
from resnorm_jax.training.checkpoint import params_sha256
from resnorm_jax.training.devices import DataParallel, choose_devices
from resnorm_jax.training.evaluation import evaluate
from resnorm_jax.training.identity import change_line, identify
from resnorm_jax.training.initial import first_variables
from resnorm_jax.training.loop import Outcome, Run, train_seed
from resnorm_jax.training.memory import memory_told
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.preemption import Signals
from resnorm_jax.training.report import make_report, write_report
from resnorm_jax.training.run_data import data_line, read_data, scaled, scored_rows, total_steps
from resnorm_jax.training.run_directory import check_steps, claimed, open_run
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
      Preempted: after SIGTERM or SIGINT; what was to be saved is saved.
      DivergedError: when a loss is not finite.
    """
    console.print(runtime_line(), highlight=False)
    check_names(config.model)
    devices = choose_devices(config.devices, config.train.batch_size, config.train.accumulate)
    with claimed(workdir), Signals() as signals:
        return _run(config, workdir, console, parallel, devices, signals)


def _run(config, workdir, console, parallel, devices, signals) -> dict[str, Any]:
    """`run_experiment`, in a directory that this process holds."""
    train = config.train
    raw = read_data(config)
    dataset = scaled(raw, config)
    model = build_model(config, describe(dataset))
    buckets = length_buckets(dataset.train.lengths, train.buckets)
    steps = total_steps(config, dataset, buckets)
    optimizer, schedule = make_optimizer(config.optimizer, steps)
    first = partial(first_variables, config, model, dataset, buckets)
    # Before anything is written: a norm that does not fit its slot is found when it is made.
    jax.eval_shape(lambda: first(config.seed))
    check_steps(workdir, steps)
    identity = open_run(workdir, identify(config, raw, dataset, devices))
    for change in identity.changes:
        console.print(change_line(change), highlight=False)

    options = StepOptions(
        model.apply, optimizer, train.label_smoothing, train.accumulate, train.ema, train.log_every
    )
    runner, log = parallel(options, devices), MetricsLog(workdir / "metrics.jsonl")
    watchdog = Watchdog(train.watchdog)
    run = Run(
        train, dataset, runner, schedule, buckets, workdir, log, console, watchdog, signals
    )  # fmt: skip
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
                console.print(f"attention: {model.encoder.attention}", highlight=False)
                layers = loop_text(model.encoder.layers_a_step, model.encoder.depth)
                console.print(f"layers: {layers}", highlight=False)
            state = state_of(seed, variables)
            scores.append(_scores(run, seed, train_seed(run, seed, state, steps)))
    report = make_report(config, dataset, scores, runner.programs, identity.changes)
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
