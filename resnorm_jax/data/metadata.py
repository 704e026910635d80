"""What a run keeps of its data, checked before new inputs are prepared by it."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from resnorm_jax.data.csv_format import Form
from resnorm_jax.data.names import shown
from resnorm_jax.data.tokenization import TOKENIZERS
from resnorm_jax.data.tokenizer_files import FILE
from resnorm_jax.errors import UserError

KINDS = ("features", "tokens", "images")
TASKS = ("single_label", "multi_label")
PAIR = ("mean", "scale")
LARGEST = float(np.finfo(np.float64).max)
AXES = {"features": 1, "images": 3}  # of "shape", which is not read for tokens


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _are_names(value: Any) -> bool:
    return _are_texts(value) and len(value) > 0 and len(set(value)) == len(value)


def _are_finite(value: Any) -> bool:
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    return numbers and all(abs(v) <= LARGEST for v in value)


def _is_scaling(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping) or not all(_are_finite(value.get(k)) for k in PAIR):
        return False
    return len(value["mean"]) == len(value["scale"]) and all(v > 0 for v in value["scale"])


def _is_encoding(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return isinstance(value, Mapping)
    names = ("text_column", "label_column", "pair_column", "separator")
    columns = [value.get(key, key) for key in names]
    known = value.get("tokenizer") in TOKENIZERS
    kept = value.get("tokenizer") == FILE and isinstance(value.get("sha256"), str)
    return (
        (known or kept)
        and _is_count(value.get("max_length"))
        and all(isinstance(column, str) for column in columns)
        and _is_form(value.get("form", {}))
    )


def _is_form(value: Any) -> bool:
    """Return whether a value says how text files are written: see `Form`."""
    types = {field.name: type(field.default) for field in fields(Form)}
    return isinstance(value, Mapping) and all(
        type(item) is types.get(name) for name, item in value.items()
    )


# Of versions since: what there is if the file has none.
ABSENT: dict[str, Any] = {"stride": 1, "task": "single_label"}
Check = tuple[Callable[[Any], bool], str]
CHECKS: dict[str, Check] = {
    "kind": (lambda value: isinstance(value, str) and value in KINDS, f"one of {', '.join(KINDS)}"),
    "classes": (_are_names, "a list of different names"),
    "vocabulary": (_are_texts, "a list of texts"),
    "shape": (
        lambda value: isinstance(value, list) and all(map(_is_count, value)),
        "a list of sizes",
    ),
    "scaling": (_is_scaling, "null, or mean and scale (over 0) of each channel"),
    "encoding": (_is_encoding, "an object with tokenizer and max_length, or {}"),
    "stride": (_is_count, "a whole number over 0"),
    "task": (lambda value: value in TASKS, f"one of {', '.join(TASKS)}"),
}


def check_meta(meta: Any, where: str = "config.json: data") -> None:
    """Check metadata that came from a file: what `read_inputs` uses is there and of its type.

    Args:
      meta: as `describe` returns it, possibly through JSON.
      where: the file and the field that it came from, for the message.

    Raises:
      UserError: naming the key, its value and what it must be.
    """
    if not isinstance(meta, Mapping):
        raise UserError(f"{where}: {shown(meta)} is no object; restore the run's config.json")
    for key, (holds, what) in CHECKS.items():
        if key not in meta and key not in ABSENT:
            raise UserError(f"{where}.{key}: missing; restore the run's config.json")
        value = meta.get(key, ABSENT.get(key))
        if not holds(value):
            raise UserError(f"{where}.{key}: {shown(value)}; it must be {what}")
    _check_together(meta, where)


def _check_together(meta: Mapping[str, Any], where: str) -> None:
    kind, shape, scaling = meta["kind"], meta["shape"], meta["scaling"]
    if len(shape) != AXES.get(kind, len(shape)):
        raise UserError(f"{where}.shape: {shape}; {kind} have {AXES[kind]} sizes beside the length")
    if kind == "tokens" and not meta["vocabulary"]:
        raise UserError(f"{where}.vocabulary: empty; tokens need their names")
    if scaling is not None and [len(scaling["mean"])] != shape:
        raise UserError(f"{where}.scaling: {len(scaling['mean'])} channels, 'shape' is {shape}")
