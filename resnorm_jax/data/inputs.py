"""New inputs for a trained model, prepared as its training data was."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.data.checks import class_index, pad_rows
from resnorm_jax.data.dataset import Examples
from resnorm_jax.data.npz_format import read_npz
from resnorm_jax.data.preprocess import apply_scaling, saved_scaling
from resnorm_jax.data.text_files import (
    Row,
    label_cell,
    read_csv_rows,
    read_csv_table,
    read_json_lines,
    text_cell,
)
from resnorm_jax.data.tokenization import encoder
from resnorm_jax.data.ts_format import read_ts
from resnorm_jax.errors import UserError, check_choice

Meta = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class RawRow:
    """One row as read: where, its values (a text, or numbers without padding), its label if any."""

    where: str
    values: Any
    label: str | None = None


def _from_ts(path: Path, meta: Meta) -> list[RawRow]:
    read = read_ts(path)
    labels: Sequence[str | None] = read.labels or [None] * len(read.series)
    return [RawRow(*row) for row in zip(read.where, read.series, labels, strict=True)]


def _from_npz(path: Path, meta: Meta) -> list[RawRow]:
    read = read_npz(path)
    if read.kind != meta["kind"]:
        raise UserError(
            f"{path}: 'x' holds {read.kind}, the model was trained on {meta['kind']}; "
            "check the dtype and shape of 'x'"
        )
    labels: Sequence[str | None] = read.labels or [None] * len(read.x)
    rows = [x[:length] for x, length in zip(read.x, read.lengths, strict=True)]
    return [RawRow(*row) for row in zip(read.where, rows, labels, strict=True)]


def _label(row: Row, column: str) -> str | None:
    return label_cell(row, column) if row[1].get(column) not in (None, "") else None


def _columns(meta: Meta) -> tuple[str, str]:
    encoding = meta["encoding"]
    return encoding.get("text_column", "text"), encoding.get("label_column", "label")


def _from_json(path: Path, meta: Meta) -> list[RawRow]:
    text, label = _columns(meta)
    rows = []
    for row in read_json_lines(path):
        if meta["encoding"] and "x" not in row[1]:
            values: object = text_cell(row, text)
        elif "x" in row[1]:
            values = row[1]["x"]
        else:
            raise UserError(f'{row[0]}: no \'x\'; write {{"x": [...]}} (and "label" if known)')
        rows.append(RawRow(row[0], values, _label(row, label)))
    return rows


def _from_csv(path: Path, meta: Meta) -> list[RawRow]:
    if not meta["encoding"]:
        return [_csv_numbers(*row) for row in read_csv_rows(path)]
    text, label = _columns(meta)
    rows = read_csv_table(path)
    return [RawRow(row[0], text_cell(row, text), _label(row, label)) for row in rows]


def _csv_numbers(where: str, fields: list[str]) -> RawRow:
    try:
        values = [float(field) for field in fields]
    except ValueError as error:
        raise UserError(
            f"{where}: {error}; write rows of numbers without header, one series a row"
        ) from error
    return RawRow(where, [int(v) if v.is_integer() else v for v in values])


READERS: dict[str, Callable[[Path, Meta], list[RawRow]]] = {
    ".ts": _from_ts,
    ".npz": _from_npz,
    ".jsonl": _from_json,
    ".csv": _from_csv,
}


def _array(row: RawRow, kinds: str, what: str) -> np.ndarray:
    try:
        values = np.array(row.values)
    except ValueError as error:
        raise UserError(f"{row.where}: ragged lists; give {what}") from error
    if values.dtype.kind not in kinds or not values.size:
        raise UserError(f"{row.where}: not {what}; found {str(row.values)[:40]}")
    return values


def _finite(row: RawRow, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{row.where}: missing or infinite values are not supported")
    return values


def _features(row: RawRow, meta: Meta) -> np.ndarray:
    values = _finite(row, _array(row, "iuf", "numbers [[channel, ...], ...], one list a step"))
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or list(values.shape[1:]) != meta["shape"]:
        raise UserError(
            f"{row.where}: shape {values.shape}, the model was trained on {meta['shape'][0]} "
            "channels; give [steps, channels]"
        )
    return values


def _images(row: RawRow, meta: Meta) -> np.ndarray:
    values = _finite(row, _array(row, "iuf", "an image [height, width, channels]"))
    if list(values.shape) != meta["shape"]:
        raise UserError(
            f"{row.where}: shape {values.shape}, the model was trained on {tuple(meta['shape'])}"
        )
    return values


def _tokens(row: RawRow, meta: Meta) -> np.ndarray:
    values = _array(row, "iu", "a list of integer token ids")
    size = len(meta["vocabulary"])
    bad = values[(values < 0) | (values >= size)]
    if values.ndim != 1 or len(bad):
        found = f"token {bad[0]}" if len(bad) else f"shape {values.shape}"
        raise UserError(f"{row.where}: {found}; give one list of token ids from 0 to {size - 1}")
    return values


CHECKS = {"features": _features, "images": _images, "tokens": _tokens}


def _encode_texts(rows: list[RawRow], meta: Meta) -> list[RawRow]:
    encoding = meta["encoding"]
    if not encoding:
        return rows
    to_ids, longest = encoder(encoding["tokenizer"], meta["vocabulary"]), encoding["max_length"]
    return [
        RawRow(row.where, to_ids(row.values)[:longest], row.label)
        if isinstance(row.values, str)
        else row
        for row in rows
    ]


def _labels(rows: list[RawRow], meta: Meta) -> np.ndarray:
    y = np.full(len(rows), -1, np.int32)
    known = [i for i, row in enumerate(rows) if row.label is not None]
    names = [str(rows[i].label) for i in known]
    y[known] = class_index(
        names, meta["classes"], [rows[i].where for i in known], "the model's classes"
    )
    return y


def read_inputs(path: str | Path, meta: Meta) -> Examples:
    """Read rows to predict, scaled or tokenized as the training data was.

    Reads ``.ts`` (with or without labels), ``.npz`` (``x``, optional ``lengths`` and ``y``),
    ``.jsonl`` (objects with ``x``, or the text column, optional ``label``) and ``.csv`` (a text
    column under a header; or rows of numbers without header, one univariate series or token
    sequence a row).

    Args:
      path: of the file.
      meta: from ``describe``, possibly through JSON.

    Returns:
      The rows in the file's order; ``y`` is -1 where no label is given.

    Raises:
      UserError: with ``file:line`` (``.npz``: the row), for anything unreadable, and for channels,
        tokens or labels that the model does not know.
    """
    suffix = Path(path).suffix.lower()
    check_choice(f"{path}: file suffix", suffix, READERS)
    rows = _encode_texts(READERS[suffix](Path(path), meta), meta)
    values = [CHECKS[meta["kind"]](row, meta) for row in rows]
    dtype = np.int32 if meta["kind"] == "tokens" else np.float32
    examples = Examples(*pad_rows(values, dtype), _labels(rows, meta))
    scaling = saved_scaling(meta)
    return examples if scaling is None else apply_scaling(examples, scaling)
