"""Configs: ml_collections outside, for the command line; frozen dataclasses inside, checked.

A config file holds ``get_config(argument)`` and calls `experiment`. The training code sees a
`Config`, whose every field was checked: a key that is not known, or that the chosen optimizer or data
source does not read, is an error.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any

from ml_collections import ConfigDict, config_dict

from resnorm_jax.arrangements import DEFAULT
from resnorm_jax.data.sources import SOURCES, make_options
from resnorm_jax.errors import UserError, check_choice, nearest
from resnorm_jax.schema import NOT_NEGATIVE, POSITIVE, SHARE, checked, kind_name, kinds, option


@dataclass(frozen=True)
class ModelConfig:
    """The model; fields as in `TransformerEncoder` and `SequenceClassifier`."""

    width: int = option(64, "of the stream", POSITIVE)
    depth: int = option(3, "layers", POSITIVE)
    heads: int = option(4, "of attention", POSITIVE)
    mlp_width: int | None = option(None, "inside the feed-forward layer; 4 * width", POSITIVE)
    arrangement: str = option(DEFAULT, "where norms stand and how branches are added")
    norm: str = option(
        "layer", "of every slot that is not given: a name, or one a layer: layer*2+rms"
    )
    norm_epsilon: float | None = option(None, "the norm's own if not given")
    embedding_norm: str | None = option(
        None, "slot: the embedding; a slot's norm stands in place of norm"
    )
    norm_before: str | None = option(None, "slot: the input of a branch")
    norm_after: str | None = option(None, "slot: the output of a branch")
    norm_on_stream: str | None = option(None, "slot: the stream after the addition")
    final_norm: str | None = option(None, "slot: after the last layer")
    query_key_norm: str | None = option(
        None, "slot: queries and keys, head by head or all together"
    )
    value_norm: str | None = option(None, "slot: values, head by head")
    heads_norm: str | None = option(None, "slot: joined heads, before the output projection")
    mlp_norm: str | None = option(
        None, "slot: before the last projection of the feed-forward layer"
    )
    parallel_norm: str | None = option(
        None, "slot: the input of each of several branches in parallel"
    )
    stream: str | None = option(None, "how branches are added; the arrangement's")
    query_key: str | None = option(None, "how queries and keys are scaled; the arrangement's")
    activation: str = option("gelu", "of the feed-forward layer")
    dropout: float = option(0.1, "of embeddings and branches", SHARE)
    attention_dropout: float = option(0.0, "of attention weights", SHARE)
    drop_path: float = option(
        0.0, "of a branch, in the last layer; in layer l, l / depth of it", SHARE
    )
    positions: str = option("learned", "how positions are told")
    max_length: int | None = option(None, "positions; the longest sequence of the data", POSITIVE)
    pooling: str = option("mean", "from positions to one vector")
    patch: int | None = option(None, "images only: side of a patch, 2 if not given", POSITIVE)
    kernel: int | None = option(
        None, "features only: positions that the embedding sees, 1 if not given", POSITIVE
    )
    unroll: int = option(1, "layers unrolled in each step of the scan", POSITIVE)
    remat: str = option("none", "what the backward pass computes again")
    remat_every: int = option(1, "layers between carries that are kept, with remat", POSITIVE)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; None leaves an algorithm's own default, a value it does not read is an error."""

    algorithm: str = option("adamw", "of the update")
    learning_rate: float = option(1e-3, "largest", POSITIVE)
    schedule: str = option("cosine", "of the learning rate")
    warmup: float = option(0.0, "share of all steps", SHARE)
    weight_decay: float | None = option(None, "the algorithm's own if not given", NOT_NEGATIVE)
    decay: str = option("kernel", "roles that decay, by comma or +: see resnorm_jax.training.roles")
    b1: float | None = option(None, "decay of the mean gradient", SHARE)
    b2: float | None = option(None, "decay of the mean square", SHARE)
    epsilon: float | None = option(None, "added to the root of the mean square")
    momentum: float | None = option(None, "decay of the velocity", SHARE)
    clip: float | None = option(1.0, "largest global norm of the gradient", POSITIVE)
    unit_weights: bool = option(False, "kernels of unit length after every update, as nGPT's")


@dataclass(frozen=True)
class TrainConfig:
    """The run."""

    batch_size: int = option(
        32, "rows of a global batch, over all devices and micro-batches", POSITIVE
    )
    epochs: int = option(50, "passes over the training rows", POSITIVE)
    steps: int | None = option(None, "in place of epochs", POSITIVE)
    accumulate: int = option(1, "micro-batches per step", POSITIVE)
    label_smoothing: float = option(0.0, "share of the target spread over all classes", SHARE)
    precision: str = option("float32", "of the computation", choices=("float32", "bfloat16"))
    ema: float | None = option(
        None, "decay of the averaged parameters, which are then evaluated", SHARE
    )
    validation: float = option(0.0, "share of the training rows held out, by class", SHARE)
    select: str = option(
        "last",
        "which checkpoint is scored: the last, or the best on the validation rows",
        choices=("last", "best"),
    )
    score: str = option(
        "test",
        "rows scored at the end: test, or validation while choosing",
        choices=("test", "validation"),
    )
    log_every: int = option(10, "steps", POSITIVE)
    evaluate_every: int | None = option(
        None, "steps; once an epoch, but at most 50 times a run", POSITIVE
    )
    checkpoint_every: int = option(200, "steps", POSITIVE)
    buckets: int = option(3, "padded lengths, hence compiled shapes", POSITIVE)
    scale: bool = option(
        True, "features: zero mean and unit variance by channel, from training rows"
    )
    nonfinite: str = option(
        "abort",
        "what a step that is not finite does: abort; skip it; or rollback to the last checkpoint and "
        "pass over the batches from there to it",
        choices=("abort", "skip", "rollback"),
    )
    max_rollbacks: int = option(3, "of a seed's run, with nonfinite=rollback", NOT_NEGATIVE)
    watchdog: float = option(
        3600.0,
        "seconds without a step, a batch of an evaluation or a save, after which the process ends; "
        "0 for never",
        NOT_NEGATIVE,
    )


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers; ``data`` holds a source's name and its options."""

    data: Mapping[str, Any]
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = option(
        0, "the first: initialization, order of rows, dropout, validation split", NOT_NEGATIVE
    )
    seeds: int = option(1, "how many runs, with seeds seed, seed + 1, ...", POSITIVE)
    devices: int = option(0, "how many local devices; 0 for all", NOT_NEGATIVE)

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain dictionaries, as written to ``config.json``."""
        return asdict(self)


# Presets of every config: choosing must never see the test rows.
PRESETS: dict[str, dict[str, Any]] = {
    "validate": {"train.validation": 0.2, "train.score": "validation"}
}


def from_dict(values: Mapping[str, Any]) -> Config:
    """Check nested dictionaries and return a `Config`.

    Raises:
      UserError: naming the field: an unknown key (with the nearest name), a wrong type, a value out
        of range, or fields that contradict each other.
    """
    values = dict(values)
    data = dict(values.pop("data", {}))
    source = data.pop("source", "")
    options = make_options(str(source), data)
    given = checked(Config, values, "config.")
    config = Config(data={"source": source, **asdict(options)}, **given)
    _check_divisors(config)
    return config


def experiment(
    argument: str = "",
    *,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    **sections: Any,
) -> ConfigDict:
    """Make the `ConfigDict` of a config file.

    Args:
      argument: what follows the colon of ``--config=FILE.py:ARGUMENT``: comma-separated presets
        (``smoke``) and settings (``arrangement=post_ln``, ``model.depth=6``). A setting's short name
        is enough where it is the only one at its level; ``none`` unsets a field that may be unset.
      presets: name to settings by dotted path, beside `PRESETS`.
      **sections: ``data``, ``model``, ``optimizer``, ``train`` as dictionaries, and top-level fields.

    Raises:
      UserError: for a preset or a setting that is not known.
    """
    config = _defaults(sections)
    presets = {**PRESETS, **(presets or {})}
    for item in filter(None, (part.strip() for part in argument.split(","))):
        name, equals, text = item.partition("=")
        if not equals:
            check_choice("config argument", name, presets)
            for path, value in presets[name].items():
                _assign(config, path, value)
        else:
            override(config, _find(config, name), text)
    return config


def override(config: ConfigDict, path: str, text: str) -> None:
    """Set the field at a dotted path from text, as ``--config.PATH=TEXT`` does; in place.

    Raises:
      UserError: if there is no such field (naming the nearest), or the text is not of its type.
    """
    leaves = _leaves(config)
    if path not in leaves:
        raise UserError(f"config.{path}: unknown field; {nearest(path, leaves)}")
    _assign(config, path, _parse(path, text, _kind(config, path)))


def _defaults(sections: Mapping[str, Any]) -> ConfigDict:
    config = ConfigDict(_section(Config, sections, skip=("data",)))
    data = dict(sections["data"])
    source = check_choice("data.source", data.pop("source"), SOURCES)
    config.data = ConfigDict({"source": source, **asdict(make_options(source, data))})
    return config


def _section(cls: Any, given: Mapping[str, Any], skip: tuple[str, ...] = ()) -> dict[str, Any]:
    known = kinds(cls)
    for name in sorted(set(given) - set(known)):
        raise UserError(f"config: unknown key {name!r}; {nearest(name, known)}")
    out: dict[str, Any] = {}
    for f in fields(cls):
        kind, optional = known[f.name]
        if is_dataclass(kind):
            out[f.name] = _section(kind, given.get(f.name, {}))
        elif f.name not in skip:
            value = given.get(f.name, f.default if f.default is not MISSING else None)
            out[f.name] = _placeholder(kind, value) if optional else value
    return out


def _placeholder(kind: type, value: Any) -> Any:
    """Return a reference that keeps the type of a field that may be None."""
    reference = config_dict.placeholder(kind)
    reference.set(value)
    return reference


def _leaves(config: ConfigDict, prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in config:
        value = config.get_ref(name) if config.get_type(name) is not ConfigDict else config[name]
        if isinstance(value, ConfigDict):
            out |= _leaves(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out


def _find(config: ConfigDict, name: str) -> str:
    """Return the dotted path of a setting given by path or by short name; the shallowest wins."""
    leaves = _leaves(config)
    if name in leaves:
        return name
    same = sorted((p for p in leaves if p.split(".")[-1] == name), key=lambda p: p.count("."))
    if not same:
        choices = {p.split(".")[-1] for p in leaves}
        raise UserError(f"config argument: unknown setting {name!r}; {nearest(name, choices)}")
    if len(same) > 1 and same[0].count(".") == same[1].count("."):
        raise UserError(f"config argument: {name!r} is ambiguous; write one of {', '.join(same)}")
    return same[0]


def _kind(config: ConfigDict, path: str) -> type:
    *parents, leaf = path.split(".")
    for parent in parents:
        config = config[parent]
    return config.get_type(leaf)


def _assign(config: ConfigDict, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    if path == "data":
        config.data = ConfigDict(value)
        return
    for parent in parents:
        config = config[parent]
    config[leaf] = value


def _optional(path: str) -> bool:
    """Whether the field at a dotted path may be None; options of data sources may not."""
    kind: Any = Config
    for name in path.split("."):
        if not is_dataclass(kind):
            return False
        kind, optional = kinds(kind)[name]
    return optional


def _parse(path: str, text: str, kind: type) -> Any:
    if text.lower() == "none" and _optional(path):
        return None
    if kind is bool:
        return check_choice(path, text.lower(), ("true", "false")) == "true"
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"config.{path}: {text!r} is not {kind_name(kind)}") from None


def _check_divisors(config: Config) -> None:
    width, heads = config.model.width, config.model.heads
    if width % heads:
        divisors = [h for h in range(1, width + 1) if width % h == 0]
        near = min(divisors, key=lambda h: abs(h - heads))
        raise UserError(
            f"config.model.heads: {heads} does not divide model.width {width}; try heads={near}"
        )
    given = config.train.max_rollbacks
    if config.train.nonfinite != "rollback" and given != TrainConfig.max_rollbacks:
        raise UserError(
            f"config.train.max_rollbacks: {given} is not read with "
            f"train.nonfinite={config.train.nonfinite}; set train.nonfinite=rollback"
        )
    if config.train.batch_size % config.train.accumulate:
        raise UserError(
            f"config.train.accumulate: {config.train.accumulate} does not divide "
            f"train.batch_size {config.train.batch_size}"
        )
