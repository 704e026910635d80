"""Pretrained encoders of Hugging Face as models of this library, and back."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.build import check_names, classifier
from resnorm_jax.config import ModelConfig
from resnorm_jax.data.tokenizer_files import SPECIAL
from resnorm_jax.errors import UserError, nearest
from resnorm_jax.interop import files, own_format
from resnorm_jax.interop.config_json import (
    THEIR_TASKS,
    Description,
    describe_checkpoint,
    their_config,
)
from resnorm_jax.interop.families import FAMILIES
from resnorm_jax.interop.family import Family
from resnorm_jax.interop.mapping import Loaded, load, unload
from resnorm_jax.interop.special import Joined, check_derived, written
from resnorm_jax.modules.classifier import SequenceClassifier


def from_pretrained(
    folder: str | PathLike[str], classes: int | None = None, *, dtype: Any = None, seed: int = 0
) -> tuple[SequenceClassifier, dict[str, Any]]:
    """Load an encoder of Hugging Face: BERT, RoBERTa, DistilBERT, ELECTRA, ViT, ...

    Args:
      folder: of the checkpoint: config.json and safetensors, in one file or several; or one that
        ``resnorm convert`` wrote.
      classes: of a new head, in place of the checkpoint's; None for the checkpoint's own head, or no
        head where it has none: the model then returns pooled vectors.
      dtype: of the computation; None for float32. Parameters are float32.
      seed: of the new head's first values.

    Returns:
      The model and its variables: ``model.apply(variables, tokens, mask)``. With
      ``return_intermediates=True`` it also returns ``encoded``, the encoder's output.

    Raises:
      UserError: a folder without checkpoint, a family that is not known, files that are damaged or do
        not belong together; naming the file and what is wrong.
    """
    if files.exists(Path(folder) / own_format.NAME):
        return _own(Path(folder), classes, dtype, seed)
    described = describe_checkpoint(Path(folder))
    count = classes or (None if described.classes is None else len(described.classes))
    model = described.model()
    check_names(model)
    module = classifier(model, described.meta(), classes=count, dtype=dtype)
    loaded = load_into(described, module, model, first_params(described.meta(), module, seed))
    if described.classes is not None and classes is None and loaded.fresh:
        raise UserError(f"{folder}: no {loaded.fresh[0]}, though config.json says there is a head")
    return module, {"params": jax.tree.map(jnp.asarray, loaded.params)}


def _own(
    folder: Path, classes: int | None, dtype: Any, seed: int
) -> tuple[SequenceClassifier, dict[str, Any]]:
    """`from_pretrained`, of a folder that ``resnorm convert`` wrote in this library's format."""
    model, meta, names = own_format.read_own(folder)
    if classes is not None and classes != len(names or ()):
        raise UserError(f"{folder}: a head of {len(names or ())} classes; leave classes out")
    module = classifier(model, meta, classes=None if names is None else len(names), dtype=dtype)
    params = own_format.load_own(folder, first_params(meta, module, seed))
    return module, {"params": jax.tree.map(jnp.asarray, params)}


def first_params(meta: Mapping[str, Any], module: SequenceClassifier, seed: int) -> Any:
    """Return the first parameters of a model for data of which ``meta`` tells, as its ``init`` does."""
    shape = (
        (1, *meta["shape"]) if meta["kind"] == "images" else (1, meta["max_length"], *meta["shape"])
    )
    dtype = jnp.int32 if meta["kind"] == "tokens" else jnp.float32
    return jax.jit(module.init)(jax.random.key(seed), jnp.zeros(shape, dtype))["params"]


def load_into(
    described: Description, module: SequenceClassifier, model: ModelConfig, params: Any
) -> Loaded:
    """Return parameters with a checkpoint's values in place of theirs; see `mapping.load`."""
    tensors = Joined(described.family, files.Tensors(described.folder))
    known = check_derived(described.family, asdict(model), tensors)
    return load(described.family, module.encoder.plan(model.width), tensors, params, known)


def save_pretrained(
    folder: str | PathLike[str],
    model: ModelConfig,
    variables: Mapping[str, Any],
    classes: Sequence[str],
    *,
    family: str,
    channels: int = 3,
    beside: Sequence[str | PathLike[str]] = (),
    task: str = "single_label",
) -> None:
    """Write a classifier as a Hugging Face checkpoint, which `transformers` loads.

    Args:
      folder: new; nothing is overwritten.
      model: what the classifier was built by.
      variables: ``params``.
      classes: names of the classes.
      family: a ``model_type`` of `FAMILIES`.
      channels: of images.
      task: ``"single_label"``, or ``"multi_label"`` where a row has any number of classes.
      beside: folders whose tokenizer's files are copied, each from the first that has it.

    Raises:
      UserError: the folder is there, or the model is none of that family.
    """
    if family not in FAMILIES.names():
        raise UserError(f"--family: {family!r} is not written; {nearest(family, FAMILIES.names())}")
    row = FAMILIES.get(family)
    config = their_config(row, model, classes, channels)
    config["problem_type"] = next(t for t, ours in THEIR_TASKS.items() if ours == task)
    module = classifier(model, {**_BLANK, "kind": row.kind, "shape": _image(model, row, channels)},
                        classes=len(classes))  # fmt: skip
    tensors = unload(row, module.encoder.plan(model.width), variables["params"])
    tensors = written(row, asdict(model), tensors)
    with files.new_folder(Path(folder)) as part:
        (part / files.CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        files.write_tensors(part, {n: np.asarray(v, np.float32) for n, v in tensors.items()})
        for name in files.TOKENIZER:
            if found := next((Path(b) / name for b in beside if (Path(b) / name).is_file()), None):
                shutil.copyfile(found, part / name)
        _describe_tokenizer(part)


# What transformers calls the special tokens that a tokenizer has, by use.
THEIR_SPECIAL = {
    "pad": "pad_token", "unknown": "unk_token", "begin": "cls_token", "separator": "sep_token",
    "mask": "mask_token",
}  # fmt: skip


def _describe_tokenizer(folder: Path) -> None:
    """Write what transformers needs beside a tokenizer.json that came alone."""
    path, beside = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not path.is_file() or beside.is_file():
        return
    added = [t["content"] for t in files.read_object(path)["added_tokens"] if t.get("special")]
    said: dict[str, str] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for use, name in THEIR_SPECIAL.items():
        if found := next((t for t in SPECIAL[use] if t in added), None):
            said[name] = found
    beside.write_text(json.dumps(said, indent=2) + "\n", "utf-8")


_BLANK: dict[str, Any] = {"classes": [], "vocabulary": (), "max_length": 1, "stride": 1}


def _image(model: ModelConfig, row: Family, channels: int) -> list[int]:
    if row.kind != "images":
        return []
    side = round((model.max_length or 1) ** 0.5) * (model.patch or 1)
    return [side, side, channels]
