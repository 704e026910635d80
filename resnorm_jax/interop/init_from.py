"""Runs that start from a checkpoint's weights: what their config becomes, and their first variables."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from resnorm_jax.config import Config, ModelConfig, from_dict
from resnorm_jax.data.names import shown
from resnorm_jax.data.sources import SOURCES
from resnorm_jax.errors import UserError
from resnorm_jax.interop.config_json import FREE, describe_checkpoint
from resnorm_jax.interop.files import exists, weights_sha256
from resnorm_jax.interop.pretrained import load_into

# Fields that a run with a checkpoint's weights may choose itself.
OWN = (FREE - {"separator", "vocabulary", "max_length", "embedding_std"}) | {"pooling"}


def checked_config(values: Mapping[str, Any], kept: Config | None = None) -> Config:
    """Return the config that a person's values make, with a checkpoint's fields where they name one.

    ``kept`` is as in `from_checkpoint`.

    Raises:
      UserError: see `resnorm_jax.config.from_dict` and `from_checkpoint`.
    """
    return from_checkpoint(from_dict(values), kept)


def is_gone(config: Config) -> bool:
    """Whether a config starts from a checkpoint whose folder is not there any more."""
    return config.init_from is not None and not exists(Path(config.init_from))


def from_checkpoint(config: Config, kept: Config | None = None) -> Config:
    """Return a config with the model of its ``init_from``, and the tokenizer that belongs to it.

    A config that has been through here comes out as it is.

    Args:
      config: of a run.
      kept: the config of the run in the same directory, if it has begun: what its checkpoint said holds
        where the checkpoint's folder is gone.

    Raises:
      UserError: no such checkpoint, or a field of the model that contradicts it.
    """
    if config.init_from is None:
        if config.init_sha256 is not None:
            raise UserError("config.init_sha256: not read without init_from; leave it out")
        return config
    if kept is not None and is_gone(config) and config.init_from == kept.init_from:
        return _as_kept(config, kept)
    try:
        described = describe_checkpoint(Path(config.init_from))
        digest = weights_sha256(described.folder)
    except UserError as error:
        raise UserError(f"config.init_from: {error}") from None
    return replace(
        config,
        init_sha256=_digest(config, digest),
        model=_model(config, described.fields),
        data=_with_tokenizer(config, described.folder),
    )


def _model(config: Config, theirs: Mapping[str, Any]) -> ModelConfig:
    """Return a config's model with the fields that the weights are of."""
    default = ModelConfig()
    chosen: dict[str, Any] = {}
    for field in (f.name for f in fields(ModelConfig) if f.name not in OWN):
        given, usual = getattr(config.model, field), getattr(default, field)
        value = theirs.get(field, usual)
        if given not in (usual, value):
            raise UserError(
                f"config.model.{field}: {shown(given)}, but the weights of init_from are of a model "
                f"with {shown(value)}; leave the field out, or train without init_from"
            )
        chosen[field] = value
    if config.model.pooling is None:
        chosen["pooling"] = theirs["pooling"]
    return replace(config.model, **chosen)


def _digest(config: Config, digest: str | None) -> str | None:
    if config.init_sha256 not in (None, digest):
        raise UserError(
            f"config.init_sha256: {config.init_sha256}, but that of the weights of init_from is "
            f"{digest}; fetch them again, or leave the field out"
        )
    return digest


def _as_kept(config: Config, kept: Config) -> Config:
    """`from_checkpoint`, of a run that has begun, without its checkpoint."""
    source = SOURCES[config.data["source"]].options()
    usual, theirs = getattr(source, "tokenizer", None), kept.data.get("tokenizer")
    data = config.data
    if usual is not None and data["tokenizer"] == usual and theirs is not None:
        data = {**data, "tokenizer": theirs}
    return replace(
        config,
        init_sha256=_digest(config, kept.init_sha256),
        model=_model(config, asdict(kept.model)),
        data=data,
    )


def _with_tokenizer(config: Config, folder: Path) -> Mapping[str, Any]:
    """Return the options of the data with the checkpoint's tokenizer, where none is chosen."""
    usual = getattr(SOURCES[config.data["source"]].options(), "tokenizer", None)
    if usual is None or config.data["tokenizer"] != usual:
        return config.data
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"config.data.tokenizer: {usual!r}, and init_from has no tokenizer.json; name the one that "
            "belongs to the weights"
        )
    return {**config.data, "tokenizer": str(folder)}


@dataclass(frozen=True)
class Started:
    """Variables that a run starts from, and what is said of them."""

    variables: dict[str, Any]
    told: str


def with_weights(config: Config, model: Any, variables: Mapping[str, Any]) -> Started:
    """Return a model's first variables with the weights of ``config.init_from`` in place of theirs.

    Args:
      config: with a checkpoint.
      model: as `resnorm_jax.build.build_model` makes it.
      variables: of its ``init``.

    Raises:
      UserError: the weights do not fit; both sides are listed.
    """
    described = describe_checkpoint(Path(config.init_from or ""))
    loaded = load_into(described, model, config.model, variables["params"])
    new = f"; new: {', '.join(loaded.fresh)}" if loaded.fresh else ""
    left = f"; not read: {len(loaded.unread)} arrays of other heads" if loaded.unread else ""
    told = f"weights: {described.family.name} of {described.folder}{new}{left}"
    return Started({**variables, "params": loaded.params}, told)


def check_fits(config: Config, meta: Mapping[str, Any]) -> None:
    """Raise UserError where the data are not of the kind and size that the weights are for."""
    if config.init_from is None or is_gone(config):  # it has begun: it fitted
        return
    described = describe_checkpoint(Path(config.init_from))
    wanted, kind = described.family.kind, meta["kind"]
    if kind != wanted:
        raise UserError(
            f"config.init_from: a {described.family.name!r} model reads {wanted}; the data are {kind}"
        )
    if kind == "images" and list(meta["shape"]) != described.meta()["shape"]:
        height, width, channels = described.meta()["shape"]
        raise UserError(
            f"config.init_from: its model reads images of {height} x {width} x {channels}; the data "
            f"have {' x '.join(map(str, meta['shape']))}: resize them"
        )
