"""A classifier in a folder, in this library's own terms: resnorm.json and model.safetensors.

The arrays are named by their paths in the parameter tree, parts joined by ``/``, and lie as they do
here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.config import ModelConfig
from resnorm_jax.errors import UserError
from resnorm_jax.interop import files
from resnorm_jax.interop.mapping import flatten, unflatten
from resnorm_jax.schema import checked

NAME = "resnorm.json"


def write_own(
    folder: Path,
    model: ModelConfig,
    meta: Mapping[str, Any],
    params: Any,
    classes: Sequence[str] | None,
) -> None:
    """Write a classifier into a new folder.

    Args:
      folder: new.
      model: what the classifier was built by.
      meta: ``kind``, ``shape`` and ``max_length`` of its data.
      params: its parameters.
      classes: of its head; None where it has none.

    Raises:
      UserError: the folder is there.
    """
    said = {
        "model": asdict(model),
        "classes": None if classes is None else list(classes),
        "data": {name: meta[name] for name in ("kind", "shape", "max_length")},
        "task": meta.get("task", "single_label"),
    }
    tensors = {"/".join(path): np.asarray(leaf) for path, leaf in flatten(params).items()}
    with files.new_folder(folder) as part:
        (part / NAME).write_text(json.dumps(said, indent=2) + "\n", "utf-8")
        files.write_tensors(part, tensors)


def read_own(folder: Path) -> tuple[ModelConfig, dict[str, Any], tuple[str, ...] | None]:
    """Return the model, its data and its classes, of a folder of `write_own`.

    Raises:
      UserError: resnorm.json is damaged; naming the field.
    """
    path = folder / NAME
    said = files.read_object(path)
    for name, kind in (("model", dict), ("data", dict)):
        if not isinstance(said.get(name), kind):
            raise UserError(f"{path}: no {name}; write it again with resnorm convert")
    model = ModelConfig(**checked(ModelConfig, said["model"], f"{path}: model."))
    data, classes = said["data"], said.get("classes")
    names = isinstance(classes, list) and all(isinstance(c, str) for c in classes)
    shape = data.get("shape")
    sizes = [data.get("max_length"), *(shape if isinstance(shape, list) else [None])]
    whole = all(type(n) is int and n > 0 for n in sizes)
    if data.get("kind") not in ("tokens", "features", "images") or not whole:
        raise UserError(f"{path}: data: no kind, shape and max_length; write it again")
    if classes is not None and not names:
        raise UserError(f"{path}: classes: no list of names; write it again with resnorm convert")
    task = said.get("task", "single_label")
    if task not in ("single_label", "multi_label"):
        raise UserError(
            f"{path}: task: {task!r} is not single_label or multi_label; write it again"
        )
    meta = {
        "task": task,
        "classes": classes or [],
        "vocabulary": range(model.vocabulary or 0),
        "stride": 1,
    }
    return model, {**meta, **data}, None if classes is None else tuple(classes)


def load_own(folder: Path, like: Any) -> Any:
    """Return the parameters that a folder holds, in the shapes of ``like``.

    Raises:
      UserError: listing what is missing and what is left over, or naming a shape that differs.
    """
    tensors = files.Tensors(folder)
    leaves = {"/".join(path): leaf for path, leaf in flatten(like).items()}
    lacking, left = sorted(set(leaves) - set(tensors)), sorted(set(tensors) - set(leaves))
    if lacking or left:
        raise UserError(f"{folder}: it lacks {lacking[:5]}, and has {left[:5]} too many")
    found = {}
    for name, leaf in leaves.items():
        value = tensors[name]
        if value.shape != leaf.shape:
            raise UserError(f"{folder}: {name}: shape {value.shape}; the model has {leaf.shape}")
        found[tuple(name.split("/"))] = value
    return unflatten(found)
