"""Configs: ml_collections outside, for the command line; frozen dataclasses inside, checked.

A config file holds ``get_config(argument)`` and calls `experiment`. The training code sees a
`Config`, whose every field was checked: a key that is not known, or that the chosen optimizer or data
source does not read, is an error.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any

from ml_collections import ConfigDict, config_dict

from resnorm_jax.arrangements import DEFAULT
from resnorm_jax.data.sources import SOURCES, make_options
from resnorm_jax.errors import UserError, check_choice, nearest


@dataclass(frozen=True)
class ModelConfig:
    """The model; fields as in `TransformerEncoder` and `SequenceClassifier`."""

    width: int = 64
    depth: int = 3
    heads: int = 4
    mlp_width: int | None = None  # 4 * width
    arrangement: str = DEFAULT
    norm: str = "layer"
    norm_epsilon: float | None = None  # the norm's own
    # Norms by slot, in place of ``norm``; each a name, or one a layer: "layer*2+rms".
    embedding_norm: str | None = None
    norm_before: str | None = None
    norm_after: str | None = None
    norm_on_stream: str | None = None
    final_norm: str | None = None
    query_key_norm: str | None = None
    value_norm: str | None = None
    heads_norm: str | None = None
    mlp_norm: str | None = None
    parallel_norm: str | None = None
    stream: str | None = None  # the arrangement's
    query_key: str | None = None  # the arrangement's
    activation: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    positions: str = "learned"
    max_length: int | None = None  # the longest sequence of the data
    pooling: str = "mean"
    patch: int | None = None  # images only: side of a patch, 2 if not given
    kernel: int | None = None  # features only: positions that the embedding sees, 1 if not given
    unroll: int = 1
    remat: str = "none"
    remat_every: int = 1  # layers between carries that are kept, with remat


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer; None leaves an algorithm's own default, a value it does not read is an error."""

    algorithm: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup: float = 0.0  # share of all steps
    weight_decay: float | None = None
    decay: str = "kernel"  # roles that decay, by comma or +: see resnorm_jax.training.roles
    b1: float | None = None
    b2: float | None = None
    epsilon: float | None = None
    momentum: float | None = None
    clip: float | None = 1.0  # largest global norm of the gradient
    unit_weights: bool = False  # kernels of unit length after every update, as nGPT's


@dataclass(frozen=True)
class TrainConfig:
    """The run."""

    batch_size: int = 32  # rows of a global batch, over all devices and micro-batches
    epochs: int = 50
    steps: int | None = None  # in place of epochs
    accumulate: int = 1  # micro-batches per step
    label_smoothing: float = 0.0
    precision: str = "float32"
    ema: float | None = None  # decay of the averaged parameters, which are then evaluated
    validation: float = 0.0  # share of the training rows held out, by class
    select: str = "last"  # which checkpoint is scored: "last", or "best" on the validation rows
    score: str = "test"  # rows scored at the end: "test", or "validation" while choosing
    log_every: int = 10  # steps
    evaluate_every: int | None = None  # steps; once an epoch, but at most 50 times a run
    checkpoint_every: int = 200  # steps
    buckets: int = 3  # padded lengths, hence compiled shapes
    scale: bool = True  # features: zero mean and unit variance by channel, from training rows


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers.

    Attributes:
      data: ``source`` and that source's options.
      seed: the first seed: initialization, order of rows, dropout, validation split.
      seeds: how many runs, with seeds ``seed, seed + 1, ...``.
      devices: how many local devices; 0 for all.
    """

    data: Mapping[str, Any]
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    seeds: int = 1
    devices: int = 0

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
    config = _build(Config, {**values, "data": {"source": source, **asdict(options)}}, "")
    _check_numbers(config)
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
    unknown = set(given) - {f.name for f in fields(cls)}
    if unknown:
        name = sorted(unknown)[0]
        raise UserError(
            f"config: unknown key {name!r}; {nearest(name, [f.name for f in fields(cls)])}"
        )
    kinds = typing.get_type_hints(cls)
    out: dict[str, Any] = {}
    for f in fields(cls):
        if f.name in skip:
            continue
        kind, optional = _plain(kinds[f.name])
        if is_dataclass(kind):
            out[f.name] = _section(kind, given.get(f.name, {}))
            continue
        default = f.default if f.default is not MISSING else None
        value = given.get(f.name, default)
        if optional:  # a placeholder keeps the type of a field that may be None
            reference = config_dict.placeholder(kind)
            reference.set(value)
            value = reference
        out[f.name] = value
    return out


def _build(cls: Any, values: Mapping[str, Any], path: str) -> Any:
    kinds = typing.get_type_hints(cls)
    for name in values:
        if name not in kinds:
            raise UserError(f"config.{path}{name}: unknown key; {nearest(name, kinds)}")
    made = {}
    for name, value in values.items():
        kind, optional = _plain(kinds[name])
        if is_dataclass(kind):
            made[name] = _build(kind, value, f"{path}{name}.")
        elif name == "data":
            made[name] = dict(value)
        else:
            made[name] = _typed(f"config.{path}{name}", value, kind, optional)
    return cls(**made)


def _plain(kind: Any) -> tuple[Any, bool]:
    """Return a field's type and whether it may be None."""
    if isinstance(kind, types.UnionType):
        inner = [k for k in typing.get_args(kind) if k is not type(None)]
        return inner[0], True
    return kind, False


def _typed(path: str, value: Any, kind: type, optional: bool) -> Any:
    if value is None and optional:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{path}: {value!r} is not {_article(kind)}")
    return value


def _article(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "a string")


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
        kind, optional = _plain(typing.get_type_hints(kind)[name])
    return optional


def _parse(path: str, text: str, kind: type) -> Any:
    if text.lower() == "none" and _optional(path):
        return None
    if kind is bool:
        return check_choice(path, text.lower(), ("true", "false")) == "true"
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"config.{path}: {text!r} is not {_article(kind)}") from None


_POSITIVE = {
    "model": "width depth heads mlp_width max_length patch kernel unroll remat_every",
    "optimizer": "learning_rate clip",
    "train": "batch_size epochs steps accumulate log_every evaluate_every checkpoint_every buckets",
    "": "seeds",
}
_SHARES = {
    "model": "dropout attention_dropout drop_path",
    "optimizer": "warmup b1 b2 momentum",
    "train": "label_smoothing validation ema",
}
_NOT_NEGATIVE = {"optimizer": "weight_decay", "": "seed devices"}


def _check_numbers(config: Config) -> None:
    rules = (
        (_POSITIVE, lambda v: v > 0, "must be over 0"),
        (_SHARES, lambda v: 0 <= v < 1, "must lie in [0, 1)"),
        (_NOT_NEGATIVE, lambda v: v >= 0, "must not be negative"),
    )
    for sections, holds, rule in rules:
        for section, names in sections.items():
            part = getattr(config, section) if section else config
            for name in names.split():
                value = getattr(part, name)
                if value is not None and not holds(value):
                    path = f"{section}.{name}" if section else name
                    raise UserError(f"config.{path}: {value} {rule}")
    check_choice("config.train.precision", config.train.precision, ("float32", "bfloat16"))
    check_choice("config.train.score", config.train.score, ("test", "validation"))
    check_choice("config.train.select", config.train.select, ("last", "best"))
    width, heads = config.model.width, config.model.heads
    if width % heads:
        divisors = [h for h in range(1, width + 1) if width % h == 0]
        near = min(divisors, key=lambda h: abs(h - heads))
        raise UserError(
            f"config.model.heads: {heads} does not divide model.width {width}; try heads={near}"
        )
    if config.train.batch_size % config.train.accumulate:
        raise UserError(
            f"config.train.accumulate: {config.train.accumulate} does not divide "
            f"train.batch_size {config.train.batch_size}"
        )
