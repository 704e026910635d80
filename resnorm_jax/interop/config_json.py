"""The config.json of a Hugging Face checkpoint, as fields of a model's config, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from resnorm_jax.config import ModelConfig
from resnorm_jax.data.names import shown
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.interop import files
from resnorm_jax.interop.families import FAMILIES
from resnorm_jax.interop.family import Family
from resnorm_jax.schema import checked

EXPORTED = "model.json"  # in folders of resnorm export
HEADS = (
    "ForSequenceClassification",
    "ForImageClassification",
    "ForImageClassificationWithTeacher",
)
# How sentence-transformers pools, in the words of its 1_Pooling/config.json.
POOLED = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


@dataclass(frozen=True)
class Description:
    """What the config.json of a checkpoint says, in this library's terms.

    Attributes:
      folder: where it stands.
      family: its row.
      fields: of `resnorm_jax.config.ModelConfig`, those that the checkpoint decides.
      classes: names of its head's classes; None where it has no head.
      channels: of images.
      task: what is asked of a row: see `THEIR_TASKS`.
    """

    folder: Path
    family: Family
    fields: Mapping[str, Any]
    classes: tuple[str, ...] | None
    channels: int = 3
    task: str = "single_label"

    def model(self, **changed: Any) -> ModelConfig:
        """Return the model's config, with the fields of ``changed`` in place of its own."""
        return ModelConfig(**{"dropout": 0.0, **self.fields, **changed})

    def meta(self) -> dict[str, Any]:
        """Return what data such a model is for, as `resnorm_jax.data.preprocess.describe` does."""
        tokens = self.fields.get("vocabulary") or 0
        patch = self.fields.get("patch") or 1
        side = round(self.fields["max_length"] ** 0.5) * patch if self.fields["max_length"] else 0
        shape = [side, side, self.channels] if self.family.kind == "images" else []
        return {
            "kind": self.family.kind,
            "classes": list(self.classes or ()),
            "vocabulary": range(tokens),
            "shape": shape,
            "max_length": min(self.fields["max_length"] or 8, 8),
            "stride": 1,
            "task": self.task,
        }


def describe_checkpoint(folder: str | Path) -> Description:
    """Read the config.json of a checkpoint.

    Raises:
      UserError: there is none, its family is not known, or it asks for what is not read here.
    """
    folder = Path(folder)
    path = folder / files.CONFIG
    if not files.exists(path) and files.exists(folder / EXPORTED):
        raise UserError(
            f"{folder}: written by resnorm export, which rn.load_exported loads; for "
            "rn.from_pretrained write the run with resnorm convert"
        )
    said = files.read_object(path)
    family = _family(path, said)
    for name, wanted in family.required.items():
        if said.get(name, wanted) != wanted:
            raise UserError(
                f"{path}: {name} is {shown(said[name])}; of {family.name!r} models only those with "
                f"{shown(wanted)} are read"
            )
    found = {**family.fixed, **{s.ours: _value(path, said, s) for s in family.settings}}
    found |= _derived_of(path, family, said)
    found["separator"] = _separator(folder, family, found)
    found["pooling"], pooled = _pooling(folder, found)
    if pooled:
        found |= {"head_activation": None, "head_norm": None}
    given = {name: value for name, value in found.items() if value is not None}
    fields_ = {**found, **checked(ModelConfig, given, f"{path}: ")}
    _check_heads(path, fields_)
    return Description(
        folder, family, fields_, _classes(path, said), int(said.get("num_channels", 3)),
        THEIR_TASKS.get(str(said.get("problem_type")), "single_label"),
    )  # fmt: skip


# What is asked of a row, as a config.json says it and as here; a regression's head is one logit.
THEIR_TASKS = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
}


def _check_heads(path: Path, found: Mapping[str, Any]) -> None:
    width, heads, keys = (found.get(name) for name in ("width", "heads", "kv_heads"))
    if not found.get("head_width") and width and heads and width % heads:
        raise UserError(f"{path}: {heads} heads do not divide a width of {width}; fetch it again")
    if keys and heads and heads % keys:
        raise UserError(f"{path}: {keys} heads of keys do not divide {heads} heads; fetch it again")


def _family(path: Path, said: Mapping[str, Any]) -> Family:
    name = said.get("model_type")
    if not isinstance(name, str):
        raise UserError(f"{path}: no model_type; it is no config.json of a model")
    rows = {row.architecture: row for row in FAMILIES.rows() if name in (row.model_type, row.name)}
    if not rows:
        raise UserError(
            f"{path}: model_type {shown(name)} is not read; {nearest(name, FAMILIES.names())}"
        )
    named = (rows.get(str(given)) for given in said.get("architectures") or ())
    return next(filter(None, named), next(iter(rows.values())))


def _derived_of(path: Path, family: Family, said: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return family.read(said)
    except UserError:
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise UserError(
            f"{path}: a value is not of its field's kind ({' '.join(str(error).split())[:100]}); "
            "fetch it again"
        ) from None


def _value(path: Path, said: Mapping[str, Any], setting: Any) -> Any:
    value = said.get(setting.theirs, setting.default)
    if setting.names is None:
        return value
    if isinstance(value, list | dict) or value not in setting.names:
        raise UserError(
            f"{path}: {setting.theirs} is {shown(value)}; {nearest(str(value), setting.names)}"
        )
    return setting.names[value]


def _separator(folder: Path, family: Family, found: Mapping[str, Any]) -> int | None:
    """Return the id of the token that ends a text, from tokenizer.json or vocab.txt."""
    if family.separator is None or (found.get("token_types") or 0) < 2:
        return None
    if (path := folder / "tokenizer.json").exists():
        for token in files.read_object(path).get("added_tokens", []):
            if isinstance(token, dict) and token.get("content") == family.separator:
                return int(token["id"])
    if (path := folder / "vocab.txt").exists():
        words = path.read_text("utf-8").split("\n")
        if family.separator in words:
            return words.index(family.separator)
    return None


def _pooling(folder: Path, found: Mapping[str, Any]) -> tuple[str, bool]:
    """Return how the checkpoint pools, and whether a file of sentence-transformers says so."""
    path = folder / "1_Pooling" / files.CONFIG
    if not path.exists():
        return found["pooling"], False
    said = files.read_object(path)
    on = [
        name for name, value in said.items() if name.startswith("pooling_mode_") and value is True
    ]
    if len(on) != 1 or on[0] not in POOLED:
        raise UserError(
            f"{path}: {', '.join(on) or 'no pooling'}; one of {', '.join(POOLED)} is read"
        )
    return POOLED[on[0]], True


def _classes(path: Path, said: Mapping[str, Any]) -> tuple[str, ...] | None:
    architectures = said.get("architectures") or []
    if not any(str(name).endswith(HEADS) for name in architectures):
        return None
    labels = said.get("id2label") or {
        str(n): f"LABEL_{n}" for n in range(said.get("num_labels", 2))
    }
    if not isinstance(labels, dict) or sorted(labels, key=int) != [
        str(n) for n in range(len(labels))
    ]:
        raise UserError(f"{path}: id2label {shown(labels)}: no names of classes from 0 on")
    return tuple(str(labels[str(n)]) for n in range(len(labels)))


def family_of(model: ModelConfig) -> list[Family]:
    """Return the families that a model may be written as: those whose fixed fields it has."""
    return [
        family
        for family in FAMILIES.rows()
        if all(getattr(model, name) == value for name, value in family.fixed.items())
    ]


def their_config(
    row: Family, model: ModelConfig, classes: Sequence[str], channels: int = 3
) -> dict[str, Any]:
    """Return config.json of a model as one of a family.

    Raises:
      UserError: naming the field that models of the family do not have.
    """
    values = asdict(model)
    for name, value in row.fixed.items():
        if values[name] != value:
            raise UserError(
                f"config.model.{name}: {shown(values[name])}; models of {row.name!r} have "
                f"{shown(value)}: {_instead(model)}"
            )
    _check_plain(row, values)
    out: dict[str, Any] = {
        "model_type": row.model_type or row.name,
        "architectures": [row.architecture],
    }
    for setting in row.settings:
        value = values[setting.ours]
        if setting.names is not None:
            value = next((t for t, ours in setting.names.items() if ours == value), None)
            if value is None:
                raise UserError(
                    f"config.model.{setting.ours}: {shown(values[setting.ours])} is not among what "
                    f"{row.name!r} models have: {', '.join(map(str, setting.names.values()))}"
                )
        if value is None:
            raise UserError(f"config.model.{setting.ours}: not given, which {row.name!r} needs")
        out[setting.theirs] = value
    out |= row.required
    out |= row.write(values)
    if row.kind == "images":
        out["num_channels"] = channels
    names = [str(name) for name in classes]
    out["id2label"] = {str(n): name for n, name in enumerate(names)}
    out["label2id"] = {name: n for n, name in enumerate(names)}
    return out


# What changes no value that a trained model computes.
FREE = frozenset({
    "dropout", "attention_dropout", "token_dropout", "drop_path", "attention", "unroll", "remat",
    "remat_every", "separator", "max_length", "vocabulary", "embedding_std",
})  # fmt: skip


def _check_plain(row: Family, values: Mapping[str, Any]) -> None:
    """Raise UserError for a field, away from its default, that the family does not read."""
    read = {s.ours for s in row.settings} | set(row.fixed) | FREE | set(_derived(row, values))
    for field in fields(ModelConfig):
        if field.name not in read and values[field.name] != field.default:
            raise UserError(
                f"config.model.{field.name}: {shown(values[field.name])} has no place in a "
                f"{row.name!r} model"
            )


def _derived(row: Family, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields that a family reads from several of theirs."""
    return row.read(row.write(values))


def _instead(model: ModelConfig) -> str:
    names = [family.name for family in family_of(model)]
    return f"write it as {' or '.join(map(repr, names))}" if names else "no family has such models"
