"""Configs: ml_collections outside, for the command line; frozen dataclasses inside, checked.

A config file holds ``get_config(argument)`` and calls `experiment`. The training code sees a
`Config`, whose every field was checked: a key that is not known, or that the chosen optimizer or data
source does not read, is an error.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from typing import Any

from ml_collections import ConfigDict, config_dict

from resnorm_jax.config_fields import (
    Config,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
    TrainConfig,
)
from resnorm_jax.data.sources import SOURCES, make_options
from resnorm_jax.errors import UserError, check_choice, nearest
from resnorm_jax.schema import (
    KEY_SEED,
    check_section,
    checked,
    kinds,
    number,
    or_words,
    told,
    words_of,
)

__all__ = [
    "Config",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "TrainConfig",
    "experiment",
    "from_dict",
    "override",
]

POOLING = "mean"  # where neither the config nor a checkpoint says how
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
    check_section("config", values)
    values = dict(values)
    check_section("config.data", values.get("data", {}))
    data = dict(values.pop("data", {}))
    source = data.pop("source", "")
    options = make_options(str(source), data)
    given = checked(Config, values, "config.")
    config = Config(data={"source": source, **asdict(options)}, **given)
    if config.model.pooling is None and config.init_from is None:
        config = replace(config, model=replace(config.model, pooling=POOLING))
    _check_divisors(config)
    _check_mesh(config)
    KEY_SEED.check("config.seed + config.seeds - 1", config.seed + config.seeds - 1)
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
    given: dict[str, str] = {}
    chosen: set[str] = set()
    for item in filter(None, (part.strip() for part in argument.split(","))):
        name, equals, text = item.partition("=")
        if not equals:
            check_choice("config argument", name, presets)
            if name in chosen:
                raise UserError(f"config argument: preset {name!r} is given twice; keep one")
            chosen.add(name)
            _preset(config, name, presets[name], given)
        else:
            path = _find(config, name)
            _check_once(given, path, text)
            override(config, path, text)
    return config


def _check_once(given: dict[str, str], name: str, text: str) -> None:
    """Note what an argument gives; raise UserError for a setting given twice, differently."""
    if given.setdefault(name, text) != text:
        raise UserError(
            f"config argument: {name} is given twice, {given[name]!r} and {text!r}; keep one"
        )


def _preset(
    config: ConfigDict, name: str, values: Mapping[str, Any], given: Mapping[str, str]
) -> None:
    for path, value in values.items():
        if path in given:
            raise UserError(
                f"config argument: preset {name!r} comes after {path}={given[path]}, which it sets "
                "too; write the preset first"
            )
        if path != "data" and path not in (known := _leaves(config)):
            raise UserError(f"preset {name!r}: {path}: unknown field; {nearest(path, known)}")
        _assign(config, path, value)


def override(config: ConfigDict, path: str, text: str) -> None:
    """Set the field at a dotted path from text, as ``--config.PATH=TEXT`` does; in place.

    Raises:
      UserError: if there is no such field (naming the nearest), or the text is not of its type.
    """
    leaves = _leaves(config)
    inside = [leaf for leaf in leaves if leaf.startswith(f"{path}.")]
    if inside:
        raise UserError(
            f"config.{path}: a section, which has no value; set a field of it, e.g. config.{inside[0]}"
        )
    if path not in leaves:
        raise UserError(f"config.{told(path)}: unknown field; {nearest(path, leaves)}")
    _assign(config, path, _parse(path, text, _kind(config, path)))


def _defaults(sections: Mapping[str, Any]) -> ConfigDict:
    config = ConfigDict(_section(Config, sections, skip=("data",)))
    check_section("config.data", sections.get("data"))
    data = dict(sections["data"])
    source = check_choice("data.source", str(data.pop("source", "")), SOURCES)
    config.data = ConfigDict({"source": source, **asdict(make_options(source, data))})
    return config


def _section(
    cls: Any, given: Mapping[str, Any], path: str = "config", skip: tuple[str, ...] = ()
) -> dict[str, Any]:
    check_section(path, given)
    known = kinds(cls)
    for name in sorted(set(given) - set(known), key=str):
        raise UserError(f"config: unknown key {name!r}; {nearest(str(name), known)}")
    inside = {name for name, (kind, _) in known.items() if is_dataclass(kind)} | set(skip)
    values = checked(cls, {k: v for k, v in given.items() if k not in inside}, f"{path}.")
    out: dict[str, Any] = {}
    for f in fields(cls):
        kind, optional = known[f.name]
        if is_dataclass(kind):
            out[f.name] = _section(kind, given.get(f.name, {}), f"{path}.{f.name}")
        elif f.name not in skip:
            value = values.get(f.name, f.default if f.default is not MISSING else None)
            if words_of(f, kind):
                value = config_dict.FieldReference(value, field_type=(kind, str))
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


def _declared(path: str) -> tuple[Any, bool, tuple[str, ...]]:
    """Return a field's type, whether it may be None, and words that may stand for its number.

    Options of data sources may not be None, and have no such words.
    """
    kind: Any = Config
    optional = False
    words: tuple[str, ...] = ()
    for name in path.split("."):
        if not is_dataclass(kind):
            return None, False, ()
        (found,) = (f for f in fields(kind) if f.name == name)
        kind, optional = kinds(kind)[name]
        words = words_of(found, kind)
    return kind, optional, words


def _parse(path: str, text: str, kind: type) -> Any:
    declared, optional, words = _declared(path)
    if text.lower() == "none" and optional:
        return None
    if text in words:
        return text
    kind = declared if words else kind
    if kind is bool:
        return check_choice(path, text.lower(), ("true", "false")) == "true"
    if kind not in (int, float):
        return text
    try:
        return number(text, kind)
    except UserError as error:
        said = f"{told(repr(text))} is not {or_words(kind, words)}" if words else error
        raise UserError(f"config.{path}: {said}") from None


def _check_divisors(config: Config) -> None:
    width, heads = config.model.width, config.model.heads
    if width % heads and config.model.head_width is None:
        divisors = [h for h in range(1, width + 1) if width % h == 0]
        near = min(divisors, key=lambda h: abs(h - heads))
        raise UserError(
            f"config.model.heads: {heads} does not divide model.width {width}; try heads={near}"
        )
    unread = [
        f.name for f in fields(PretrainConfig) if getattr(config.pretrain, f.name) != f.default
    ]
    if config.pretrain.updates is None and unread:
        raise UserError(
            f"config.pretrain.{unread[0]}: not read without pretraining; set pretrain.updates=1000"
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


def _check_mesh(config: Config) -> None:
    """Check the mesh against the model; the devices are known only where they are used."""
    mesh, model = config.mesh, config.model
    unread = [f.name for f in fields(MeshConfig) if getattr(mesh, f.name) != f.default]
    if config.parallel != "sharded" and unread:
        raise UserError(
            f"config.mesh.{unread[0]}: not read with parallel={config.parallel}; set parallel=sharded"
        )
    inner = model.mlp_width or 4 * model.width
    for name, size in (("heads", model.heads), ("mlp_width", inner)):
        if size % mesh.tensor:
            near = max(n for n in range(1, mesh.tensor) if size % n == 0)
            raise UserError(
                f"config.mesh.tensor: {mesh.tensor} does not divide model.{name} {size}; "
                f"try tensor={near}"
            )
