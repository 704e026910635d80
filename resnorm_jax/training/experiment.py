"""A whole run: data, model, every seed, scores, files."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console

from resnorm_jax.build import build_model, check_names
from resnorm_jax.config import Config
from resnorm_jax.data import (
    Dataset,
    TrainBatches,
    describe,
    length_buckets,
    load_dataset,
    majority_accuracy,
    scale_channels,
    split_validation,
)
from resnorm_jax.errors import UserError
from resnorm_jax.reporting.figures import draw_confusion, draw_curves
from resnorm_jax.reporting.files import MetricsLog, write_json
from resnorm_jax.reporting.metrics import summarize_seeds
from resnorm_jax.reporting.tables import (
    model_summary,
    per_class_table,
    result_table,
    runtime_line,
)
from resnorm_jax.training.checkpoint import params_sha256
from resnorm_jax.training.devices import DataParallel, choose_devices
from resnorm_jax.training.evaluation import evaluate
from resnorm_jax.training.loop import Run, train_seed
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.run_directory import open_run
from resnorm_jax.training.step import StepOptions, create_state
from resnorm_jax.training.unit_weights import normalize_weights

INIT_KEY = 2**31 - 1  # folded into the root key; steps are far below it


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
    devices = choose_devices(config.devices, config.train.batch_size, config.train.accumulate)
    dataset = prepare_data(config)
    meta = describe(dataset)
    model = build_model(config, meta)
    buckets = length_buckets(dataset.train.lengths, config.train.buckets)
    steps = total_steps(config, dataset, buckets)
    optimizer, schedule = make_optimizer(config.optimizer, steps)
    # Before anything is written: a norm that does not fit its slot is found when it is made.
    jax.eval_shape(lambda: init_variables(model, dataset, buckets, config.seed))
    open_run(workdir, config, meta, devices)

    options = StepOptions(
        apply=model.apply,
        optimizer=optimizer,
        label_smoothing=config.train.label_smoothing,
        accumulate=config.train.accumulate,
        ema=config.train.ema,
        log_every=config.train.log_every,
    )
    runner = parallel(options, devices)
    run = Run(
        config.train, dataset, runner, schedule, buckets, workdir,
        MetricsLog(workdir / "metrics.jsonl"), console,
    )  # fmt: skip
    console.print(data_line(dataset), highlight=False)
    seeds = range(config.seed, config.seed + config.seeds)
    scores = []
    for seed in seeds:
        variables = init_variables(model, dataset, buckets, seed)
        if config.optimizer.unit_weights:
            variables = {**variables, "params": normalize_weights(variables["params"])}
        if seed == config.seed:
            model_summary(variables["params"], console)
        state = create_state(variables, optimizer, seed, config.train.ema)
        outcome = train_seed(run, seed, state, steps)
        found = {
            "seed": seed,
            "step": outcome.step,
            "params_sha256": params_sha256(outcome.params),
            "train_seconds": round(outcome.seconds, 3),
            "examples_per_second": outcome.examples_per_second,
        }
        rows = dataset.test if config.train.score == "test" else dataset.valid
        assert rows is not None
        found |= evaluate(
            runner, outcome.variables, rows, dataset.classes, config.train.batch_size, buckets
        )
        scores.append(found)
    report = make_report(config, dataset, scores, runner.programs)
    write_report(report, run)
    return report


def prepare_data(config: Config) -> Dataset:
    """Load the data, hold out validation rows, and scale channels by the training rows."""
    options = dict(config.data)
    dataset = load_dataset(options.pop("source"), options)
    if config.train.validation and dataset.valid is None:
        dataset = split_validation(dataset, config.train.validation, config.seed)
    if dataset.valid is None and (config.train.select, config.train.score) != ("last", "test"):
        field = "select" if config.train.select != "last" else "score"
        raise UserError(
            f"config.train.{field}: {getattr(config.train, field)!r} needs validation rows; "
            "set train.validation=0.2"
        )
    return scale_channels(dataset) if config.train.scale else dataset


def total_steps(config: Config, dataset: Dataset, buckets: tuple[int, ...]) -> int:
    """Return the number of updates: ``train.steps``, or epochs times the batches of one."""
    if config.train.steps is not None:
        return config.train.steps
    batches = TrainBatches(dataset.train, config.train.batch_size, buckets, config.seed)
    return config.train.epochs * batches.steps_per_epoch


def init_variables(
    model: Any, dataset: Dataset, buckets: tuple[int, ...], seed: int
) -> dict[str, Any]:
    """Return the variables before training; they depend on the seed and the shapes only."""
    batch = TrainBatches(dataset.train, 1, buckets, 0).batch_at(0)
    key = jax.random.fold_in(jax.random.key(seed), INIT_KEY)
    x, mask = jnp.asarray(batch["x"]), batch.get("mask")
    return _compiled_init(model)(key, x, mask)


@lru_cache(maxsize=4)
def _compiled_init(model: Any) -> Any:
    """The init of a model, compiled once for all seeds of a run."""
    return jax.jit(partial(model.init, deterministic=True))


def data_line(dataset: Dataset) -> str:
    """Return one line on the data: rows, lengths, classes."""
    parts = [f"{len(dataset.train)} training"]
    if dataset.valid is not None:
        parts.append(f"{len(dataset.valid)} validation")
    parts.append(f"{len(dataset.test)} test")
    lengths = dataset.train.lengths
    span = f"length {lengths.min()}" + (
        f" to {lengths.max()}" if lengths.max() > lengths.min() else ""
    )
    return f"{dataset.name}: {', '.join(parts)} rows, {span}, {len(dataset.classes)} classes"


def baselines(dataset: Dataset, split: str) -> dict[str, float]:
    """Return the accuracy of the trivial rules on the scored rows."""
    if split == "test":
        return {"majority class": majority_accuracy(dataset), **dataset.rules}
    assert dataset.valid is not None
    return {"majority class": majority_accuracy(replace(dataset, test=dataset.valid))}


def make_report(
    config: Config, dataset: Dataset, scores: list[dict[str, Any]], programs: int
) -> dict[str, Any]:
    """Return the report: the mean scores at the top, every seed below, trivial rules beside."""
    split = config.train.score
    summary = summarize_seeds(scores)
    trivial = baselines(dataset, split)
    hashes = [s["params_sha256"] for s in scores]
    return {
        "dataset": dataset.name,
        "arrangement": config.model.arrangement,
        "split": split,
        "rows": len(dataset.test if split == "test" else dataset.valid or ()),
        "majority": trivial["majority class"],
        "baselines": trivial,
        **{name: values["mean"] for name, values in summary.items()},
        "summary": summary,
        "train_seconds": sum(s["train_seconds"] for s in scores),
        "compiled_programs": programs,
        "params_sha256": hashes[0] if len(hashes) == 1 else hashes,
        "classes": list(dataset.classes),
        "seeds": scores,
    }


def write_report(report: Mapping[str, Any], run: Run) -> None:
    """Write ``report.json`` and the figures, and print the tables."""
    workdir, first = run.workdir, report["seeds"][0]
    title = f"{report['dataset']}, {report['arrangement']}"
    write_json(workdir / "report.json", report)
    draw_curves(run.log.rows(), workdir / "curves.png", title)
    draw_confusion(
        first["confusion"], report["classes"], workdir / "confusion.png",
        f"{title}: seed {first['seed']}, {report['split']} rows",
    )  # fmt: skip
    per_class_table(first, run.console)
    files = {
        name: workdir / path
        for name, path in (
            ("report", "report.json"),
            ("log", "metrics.jsonl"),
            ("curves", "curves.png"),
            ("confusion", "confusion.png"),
            ("checkpoints", "checkpoints"),
        )
    }
    shown = {
        **report,
        "title": f"{title}: {report['rows']} {report['split']} rows",
        "files": files,
    }
    result_table(shown, run.console)
