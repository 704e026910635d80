"""A whole run: data, model, every seed, scores, files."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from resnorm_jax.build import (
    attention_line,
    build_model,
    check_attention,
    check_names,
    kernel_and_stride,
)
from resnorm_jax.config import Config
from resnorm_jax.data import Examples
from resnorm_jax.interop.init_from import check_fits, from_checkpoint, is_gone, with_weights
from resnorm_jax.planning.unroll import loop_text
from resnorm_jax.reporting.calibration import calibration
from resnorm_jax.reporting.files import MetricsLog, SilentLog
from resnorm_jax.reporting.many_labels import THRESHOLDS
from resnorm_jax.reporting.tables import model_summary, runtime_line
from resnorm_jax.training.calibration import write_calibration
from resnorm_jax.training.checkpoint import params_sha256
from resnorm_jax.training.determinism import Determinism, determinism
from resnorm_jax.training.devices import choose_devices
from resnorm_jax.training.doors import Make, check_mesh, door_of
from resnorm_jax.training.elastic import by_devices
from resnorm_jax.training.evaluation import predict
from resnorm_jax.training.identity import change_line, described, identify
from resnorm_jax.training.initial import first_variables, init_variables
from resnorm_jax.training.learned import trained_line
from resnorm_jax.training.loop import Outcome, Run, train_seed
from resnorm_jax.training.memory import memory_told
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.phases import Phases
from resnorm_jax.training.preemption import Signals
from resnorm_jax.training.pretraining import pretraining_of
from resnorm_jax.training.processes import current
from resnorm_jax.training.profile import Profile
from resnorm_jax.training.recipe import class_weights, step_options, with_low_rank
from resnorm_jax.training.report import make_report, write_report
from resnorm_jax.training.run_data import (
    data_line,
    labels_line,
    padded_lengths,
    padding,
    read_again,
    read_data,
    scaled,
    scored_rows,
    total_steps,
)
from resnorm_jax.training.run_directory import (
    check_begun,
    check_steps,
    claimed,
    keep_files,
    kept_config,
    open_run,
)
from resnorm_jax.training.shared_run import check_alike, outputs, shared_run
from resnorm_jax.training.step import TrainState, create_state
from resnorm_jax.training.tasks import fixed_thresholds, task_of
from resnorm_jax.training.watchdog import Watchdog


def run_experiment(
    config: Config,
    workdir: Path,
    console: Console,
    parallel: Make | None = None,
) -> dict[str, Any]:
    """Train and score every seed of a config; return the report that is also written.

    Args:
      config: of the run.
      workdir: its directory.
      console: where to print.
      parallel: makes what runs the steps, e.g. one that also times them, in place of the config's.

    Raises:
      UserError: for a mistake in the config, the data or the work directory. Nothing is
        overwritten.
      Preempted: after SIGTERM or SIGINT; what was to be saved is saved.
      DivergedError: when a loss is not finite.
    """
    phases = Phases()
    console.print(runtime_line(), highlight=False)
    config = from_checkpoint(config, kept_config(workdir) if is_gone(config) else None)
    check_names(config.model)
    devices = choose_devices(
        config.devices, config.train.batch_size, config.train.accumulate, config.mesh.tensor,
        config.mesh.sequence,
    )  # fmt: skip
    parallel = parallel or door_of(config, len(devices))
    same = determinism(config.train.deterministic, devices[0].platform)
    console.print(f"deterministic: {same.told}", highlight=False)
    with outputs(workdir) as place, claimed(place), Signals() as signals:
        return _run(config, place, workdir, console, parallel, devices, same, signals, phases)


def _run(
    config, workdir, kept, console, parallel, devices, same: Determinism, signals, phases
) -> dict[str, Any]:
    """`run_experiment`, in a directory that this process holds."""
    train = config.train
    with phases("data"):
        begun = shared_run(workdir)
        raw = read_again(config, begun, kept) if is_gone(config) else read_data(config)
        dataset = scaled(raw, config)
    meta = described(dataset, begun)
    task = task_of(meta)
    task.check(train)
    check_attention(config, meta)
    check_mesh(config, meta)
    check_fits(config, meta)
    model = build_model(config, meta)
    buckets = padded_lengths(config, dataset, begun)
    steps = total_steps(config, dataset, buckets)
    optimizer, schedule = make_optimizer(config.optimizer, steps)
    weights = class_weights(train, dataset.train.y, len(dataset.classes))
    options = step_options(model, config.optimizer, train, optimizer, weights, task)

    pretraining = pretraining_of(config, model, meta)
    # Seeds that have begun go on from their checkpoints: weights that are gone are not asked for.
    source = replace(config, init_from=None) if is_gone(config) else config
    base = partial(first_variables, source, model, dataset, buckets)

    def plain() -> Any:
        return init_variables(model, dataset, buckets, config.seed)

    def shapes() -> Any:
        return with_low_rank(config.optimizer, plain(), config.seed)

    def started(seed: jax.Array, variables: Any) -> TrainState:
        return create_state(variables, optimizer, seed, train.ema, options.names)

    # Before anything is written: a norm that does not fit its slot, or a part that is not there to be
    # frozen, is found when the state is made.
    with phases("compile"):
        jax.eval_shape(lambda: started(jnp.uint32(0), shapes()))
        if pretraining is not None:
            jax.eval_shape(lambda: pretraining.first(plain(), dataset, buckets, 0))
    like = jax.eval_shape(plain)
    told = with_weights(config, model, like).told if source.init_from else ""
    check_steps(workdir, steps)
    if source is not config:
        check_begun(kept, config)
    with phases("data"):  # their digest
        now = identify(config, raw, dataset, devices, buckets, begun, same.told)
    check_alike(now)
    identity = open_run(workdir, now, by_devices(config, like))
    keep_files(workdir, dataset.files)
    for change in identity.changes:
        console.print(change_line(change), highlight=False)

    runner = parallel(options, devices, same.options)
    first = current().first  # it alone writes; the others train alike
    log = (MetricsLog if first else SilentLog)(workdir / "metrics.jsonl")
    runners = [runner]
    phases.programs = lambda: sum(each.programs for each in runners)
    watchdog = Watchdog(train.watchdog)
    traced = Profile(
        workdir / "profile" if config.profile == "steps" else None,
        partial(console.print, highlight=False, soft_wrap=True),
    )
    run = Run(
        train, dataset, runner, schedule, buckets, workdir, log, console, watchdog, signals, phases,
        traced,
    )  # fmt: skip
    if pretraining is not None:
        runners.append(parallel(pretraining.options, devices, same.options))
        pretraining.begin(run, runners[-1])
    padded = padding(dataset, buckets, train.batch_size)
    for line in (data_line(dataset, padded), *labels_line(dataset), *dataset.lines):
        console.print(line, highlight=False, soft_wrap=True)
    scores = []

    # One program, in place of one for each shape in the optimizer's state.
    made_state = runner.created(started)

    def state_of(seed: int, variables: Any) -> TrainState:
        return made_state(np.uint32(seed), variables)

    with (
        watchdog,
        traced,
        memory_told(config, run, lambda: state_of(config.seed, shapes())),
    ):
        for seed in range(config.seed, config.seed + config.seeds):
            watchdog.doing(f"seed {seed} was initialized")
            with phases("compile"):
                variables = base(seed)
            if seed == config.seed:
                model_summary(variables["params"], console)
                if told:
                    console.print(told, highlight=False, soft_wrap=True)
                console.print(attention_line(config, meta), highlight=False)
                if (stride := kernel_and_stride(config.model, meta)[1]) > 1:
                    console.print(f"stride: a token every {stride} positions", highlight=False)
                layers = loop_text(model.encoder.layers_a_step, model.encoder.depth)
                console.print(f"layers: {layers}", highlight=False)
            pretrained = {}
            if pretraining is not None:
                variables = pretraining(variables, seed)
                pretrained = {"pretraining": pretraining.report(seed)}
                console.print(f"seed {seed}: classification", highlight=False)
            with phases("compile"):
                state = state_of(seed, with_low_rank(config.optimizer, variables, seed))
            if seed == config.seed and options.learned is not None:
                console.print(trained_line(state.params, options.learned), highlight=False)
            scores.append(_scores(run, seed, train_seed(run, seed, state, steps)) | pretrained)
    if not first:
        return {}
    if pretraining is not None:
        pretraining.draw()
    report = make_report(config, dataset, scores, phases.programs(), identity)
    return write_report(report, workdir, log, console, phases)


def _scores(run: Run, seed: int, outcome: Outcome) -> dict[str, Any]:
    """Return what the report says of one seed; keep its temperature where rows were held out."""
    split, valid = run.train.score, run.dataset.valid
    rows, size = scored_rows(run.dataset, split), run.train.batch_size

    def doing(activity: str) -> None:
        run.phases.lap()
        run.watchdog.doing(activity)

    def log_probs(examples: Examples) -> np.ndarray:
        return predict(run.parallel, outcome.variables, examples, size, run.buckets, doing)

    found = None
    with run.phases("evaluation"):
        scored = log_probs(rows)
        if valid is not None:
            held = scored if rows is valid else log_probs(valid)
            found = calibration(held, valid.y)
            if isinstance(how := run.train.threshold, str):
                found["thresholds"] = THRESHOLDS[how](held, valid.y)
            write_calibration(run.workdir, seed, outcome.step, run.train.select, found)
    thresholds = fixed_thresholds(run.train.threshold, found)
    return {
        "seed": seed,
        "step": outcome.step,
        "params_sha256": params_sha256(run.parallel.host(outcome.params)),
        "train_seconds": round(outcome.seconds, 3),
        "examples_per_second": outcome.examples_per_second,
        **outcome.counts,
        **run.parallel.options.task.score(scored, rows.y, run.dataset.classes, thresholds),
        "calibration": found,
    }
