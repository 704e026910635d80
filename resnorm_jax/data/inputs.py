"""New inputs for a trained model, prepared as its training data was."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.data.dataset import Examples
from resnorm_jax.data.metadata import check_meta
from resnorm_jax.data.names import is_unicode, shown
from resnorm_jax.data.npz_format import read_npz
from resnorm_jax.data.preprocess import apply_scaling, check_range, saved_scaling
from resnorm_jax.data.rows import Rows
from resnorm_jax.data.text_columns import Columns, saved_columns
from resnorm_jax.data.text_files import TABLES, joined, read_chunks, read_rows
from resnorm_jax.data.tokenization import encode, tokenizer_of
from resnorm_jax.data.ts_format import read_ts
from resnorm_jax.errors import UserError, check_choice

Meta = Mapping[str, Any]
READERS: dict[str, Callable[[Path, Columns], Rows]] = {
    ".ts": lambda path, columns: read_ts(path),
    ".npz": lambda path, columns: read_npz(path),
    **dict.fromkeys(TABLES, read_rows),
}


def _array(where: str, value: Any, kinds: str, what: str) -> np.ndarray:
    try:
        values = np.array(value)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: ragged lists; give {what}") from error
    if values.dtype.kind not in kinds or not values.size:
        raise UserError(f"{where}: not {what}; found {shown(value)}")
    return values


def _finite(where: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{where}: missing or infinite values are not supported")
    return values


def _features(where: str, value: Any, meta: Meta) -> np.ndarray:
    what = "numbers [[channel, ...], ...], one list a step"
    values = _finite(where, _array(where, value, "iuf", what))
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or list(values.shape[1:]) != meta["shape"]:
        raise UserError(
            f"{where}: shape {values.shape}, the model was trained on {meta['shape'][0]} "
            "channels; give [steps, channels]"
        )
    return values


def _images(where: str, value: Any, meta: Meta) -> np.ndarray:
    values = _finite(where, _array(where, value, "iuf", "an image [height, width, channels]"))
    if list(values.shape) != meta["shape"]:
        raise UserError(
            f"{where}: shape {values.shape}, the model was trained on {tuple(meta['shape'])}"
        )
    return values


def _tokens(where: str, value: Any, meta: Meta) -> np.ndarray:
    values = _array(where, value, "iu", "a list of integer token ids")
    size = len(meta["vocabulary"])
    bad = values[(values < 0) | (values >= size)]
    if values.ndim != 1 or len(bad):
        found = f"token {bad[0]}" if len(bad) else f"shape {values.shape}"
        raise UserError(f"{where}: {found}; give one list of token ids from 0 to {size - 1}")
    return values


CHECKS = {"features": _features, "images": _images, "tokens": _tokens}


def read_inputs(path: str | Path, meta: Meta) -> Examples:
    """Read rows to predict, scaled or tokenized as the training data was.

    Reads ``.ts`` (with or without labels), ``.npz`` (``x``, optional ``lengths`` and ``y``),
    ``.jsonl`` (objects with ``x``, or the text column, optional ``label``), ``.csv`` and ``.tsv`` (a
    text column under a header; or rows of numbers without header, one univariate series or token
    sequence a row), ``.parquet``, and for texts folders as the ``text`` source does.

    Args:
      path: of the file.
      meta: from ``describe``, possibly through JSON.

    Returns:
      The rows in the file's order; ``y`` is -1 where no label is given.

    Raises:
      UserError: with ``file:line`` (``.npz``: the row, from 1), for anything unreadable, for
        channels, tokens or labels that the model does not know, and for ``meta`` that is damaged.
    """
    check_meta(meta)
    suffix, kind, encoding = Path(path).suffix.lower(), meta["kind"], meta["encoding"]
    folder = bool(encoding) and os.path.isdir(path)
    if not folder:
        check_choice(f"{path}: file suffix", suffix, READERS)
    columns = saved_columns(encoding, meta.get("task") == "multi_label")
    if columns.text is not None and (folder or suffix in TABLES):
        rows = joined(_encoded(chunk, meta) for chunk in read_chunks(path, columns))
    else:
        rows = READERS[suffix](Path(path), columns)
    if rows.kind not in (None, kind):
        raise UserError(
            f"{Path(path)}: 'x' holds {rows.kind}, the model was trained on {kind}; "
            "check the dtype and shape of 'x'"
        )
    return prepared(rows, meta)


def given_inputs(
    values: Sequence[Any], meta: Meta, lengths: Sequence[int] | None = None
) -> Examples:
    """Return rows given in code, scaled or tokenized as the training data was.

    Args:
      values: one a row: ``[L, C]`` (or ``[L]`` for one channel) features, ``[L]`` token ids, a text, a
        pair ``(text, pair)`` where the model was trained on pairs, or ``[H, W, C]``; an array
        ``[N, L, ...]`` of such rows.
      meta: as in `read_inputs`.
      lengths: valid steps of each row, where ``values`` are padded; the rest is not looked at.

    Raises:
      UserError: naming the row, counted from 1, as `read_inputs`; or there are no rows.
    """
    check_meta(meta)
    where = [f"row {number}" for number in range(1, len(values) + 1)]
    if not where:
        raise UserError("no rows; give at least one")
    return prepared(Rows(_cut(values, lengths), [None] * len(where), where), meta)


def _cut(values: Sequence[Any], lengths: Sequence[int] | None) -> Sequence[Any]:
    """Return the rows without what stands behind their lengths."""
    if lengths is None:
        return values
    if len(lengths) != len(values):
        raise UserError(f"lengths: {len(lengths)}, of {len(values)} rows; give one a row")
    for number, (row, length) in enumerate(zip(values, lengths, strict=True), start=1):
        if not 1 <= length <= len(row):
            raise UserError(f"row {number}: length {length}, of {len(row)} steps; give 1 or more")
    return [row[: int(length)] for row, length in zip(values, lengths, strict=True)]


def _text(where: str, value: Any, paired: bool) -> Any:
    """Return a row's text, or pair of texts as a tuple, checked; what is no text stays as it is."""
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not texts or not isinstance(texts[0], str):
        return value
    if len(texts) != 1 + paired or not all(isinstance(text, str) for text in texts):
        wanted = "pairs of texts: give (text, pair)" if paired else "single texts: give one a row"
        raise UserError(f"{where}: {shown(value)}; the model was trained on {wanted}")
    for text in texts:
        if not text.strip():
            raise UserError(f"{where}: empty text; give a text or drop the row")
        if not is_unicode(text):
            raise UserError(f"{where}: broken Unicode (a lone surrogate) in the text")
    return tuple(texts) if paired else texts[0]


def _encoded(rows: Rows, meta: Meta) -> Rows:
    """Return the rows with arrays of token ids in place of texts."""
    encoding = meta["encoding"]
    if not encoding:
        return rows
    paired = bool(encoding.get("pair_column"))
    values = [_text(*pair, paired) for pair in zip(rows.where, rows.values, strict=True)]
    tokenizer = tokenizer_of(encoding, meta["vocabulary"], meta.get("directory"))
    made = encode(replace(rows, values=values), tokenizer).values
    texts = [isinstance(value, str | tuple) for value in values]
    for where, found, text in zip(rows.where, made, texts, strict=True):
        if text and not found:
            raise UserError(f"{where}: the tokenizer makes no token of the text; drop the row")
    ids = [np.array(i, np.int32) if t else i for i, t in zip(made, texts, strict=True)]
    return replace(rows, values=ids)


def _check_labels(rows: Rows, many: bool) -> None:
    for label, place in zip(rows.labels, rows.where, strict=True):
        if label is not None and isinstance(label, tuple) != many:
            wanted = "any number of labels: give a list" if many else "one label a row: give a name"
            raise UserError(f"{place}: {shown(label)}; the model was trained on {wanted}")


def prepared(rows: Rows, meta: Meta) -> Examples:
    """Return rows checked, and scaled or tokenized as the training data was.

    Raises:
      UserError: see `read_inputs`.
    """
    kind = meta["kind"]
    _check_labels(rows, meta.get("task") == "multi_label")
    rows = _encoded(rows, meta)
    pairs = zip(rows.where, rows.values, strict=True)
    rows = replace(rows, values=[CHECKS[kind](*pair, meta) for pair in pairs])
    examples = rows.examples(kind, meta["classes"], "the model's classes")
    scaling = saved_scaling(meta)
    if scaling is None:
        return examples
    scaled = apply_scaling(examples, scaling)
    check_range(scaled, lambda row: rows.where[row], scaling)
    return scaled
