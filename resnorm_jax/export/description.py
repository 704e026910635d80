"""``model.json``: what a folder of an exported model says of itself, for people and programs."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnorm_jax.data.metadata import check_meta
from resnorm_jax.errors import UserError
from resnorm_jax.export.program import Program
from resnorm_jax.interop.own_format import NAME as OWN
from resnorm_jax.reporting.files import DamagedFileError, read_regular, read_sealed
from resnorm_jax.training.saved_run import Trained
from resnorm_jax.version import __version__

NAME = "model.json"
WHAT = {
    "tokens": "ids of tokens, 0 behind a row's length",
    "features": "values of each channel, scaled as `preprocessing` says, 0 behind a row's length",
    "images": "values of each pixel's channels",
}


OUTPUTS = {
    "single_label": "logarithms of the classes' probabilities; divided by `temperature`, and "
    "normalized again, they are calibrated",
    "multi_label": "logarithms of each label's probability p; a row has a label from `thresholds` on; "
    "sigmoid((log p - log(1 - p)) / `temperature`) is calibrated",
}


def _thresholds(trained: Trained) -> dict[str, list[float]]:
    """Return the probability from which a row has each label, where it has any number."""
    if trained.task.name == "single_label":
        return {}
    return {"thresholds": np.broadcast_to(trained.thresholds, len(trained.classes)).tolist()}


def describe_export(trained: Trained, made: Program, form: str) -> dict[str, Any]:
    """Return what ``model.json`` says, but for the files and how they were checked."""
    what = {"x": WHAT[trained.meta["kind"]], "lengths": "valid positions of each row, from 1 on"}
    inputs = [
        {"name": name, "dtype": made.dtypes[name], "shape": list(shape), "what": what[name]}
        for name, shape in made.shapes.items()
    ]
    return {
        "format": form,
        "inputs": inputs,
        "output": {
            "name": "log_probs",
            "dtype": "float32",
            "shape": ["b", len(trained.classes)],
            "what": OUTPUTS[trained.task.name],
        },
        "sizes": {"b": "rows", "l": {"most": made.most, "positions": made.stride}},
        "classes": list(trained.classes),
        "temperature": trained.temperature,
        **_thresholds(trained),
        "preprocessing": trained.meta,
        "parameters": list(made.parameters),
        "config": trained.config.to_dict(),
        "run": {"seed": trained.seed, "step": trained.step, "checkpoint": trained.kind},
        "versions": {"resnorm_jax": __version__, "jax": jax.__version__},
    }


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a folder, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }


def read_description(folder: Path) -> dict[str, Any]:
    """Return what ``model.json`` says; its files are those that it was written with.

    Raises:
      UserError: there is none, it is damaged, or a file is not what it was.
    """
    path = folder / NAME
    try:
        found = read_sealed(path, frozenset())
    except FileNotFoundError:
        other = "; rn.from_pretrained loads this one" if (folder / OWN).exists() else ""
        raise UserError(
            f"{folder}: no {NAME}; name a folder that resnorm export has written{other}"
        ) from None
    except DamagedFileError as error:
        raise UserError(f"{path}: damaged ({error}); export the run again") from None
    check_meta(found["preprocessing"], f"{path}: preprocessing")
    _check_files(folder, found["files"])
    return found


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, digest in files.items():
        try:
            content = read_regular(folder / name)
        except (FileNotFoundError, DamagedFileError) as error:
            raise UserError(f"{folder / name}: {error}; export the run again") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(
                f"{folder / name}: not the file that was exported; export the run again"
            )
