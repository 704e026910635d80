"""Reader of ``.npz`` files with ``x``, and optionally ``y`` and ``lengths``. Never unpickles."""

import sys
from pathlib import Path

import numpy as np

from resnorm_jax.data.dataset import Kind
from resnorm_jax.data.names import check_distinct, is_unicode, shown
from resnorm_jax.data.npz_members import read_arrays
from resnorm_jax.data.rows import Label, Rows
from resnorm_jax.errors import UserError

LARGEST_TOKEN = 10**6
LAYOUTS: dict[tuple[int, str], Kind] = {
    (2, "integer"): "tokens",
    (2, "float"): "features",
    (3, "integer"): "features",
    (3, "float"): "features",
    (4, "float"): "images",
    (4, "uint8"): "images",
}


def _layout(path: str | Path, x: np.ndarray) -> Kind:
    if not x.size:
        raise UserError(f"{path}: 'x' is empty (shape {x.shape}); give at least one row")
    family = {"f": "float", "i": "integer", "u": "integer"}.get(x.dtype.kind, x.dtype.name)
    for name in (x.dtype.name, family):
        if (x.ndim, name) in LAYOUTS:
            return LAYOUTS[x.ndim, name]
    raise UserError(
        f"{path}: 'x' is {x.dtype} with shape {x.shape}; give float [N, L, C] or [N, L], "
        "integer tokens [N, L], or float or uint8 images [N, H, W, C]"
    )


def _check_rows(path: str | Path, arrays: dict[str, np.ndarray], key: str, kinds: str) -> None:
    rows, values = len(arrays["x"]), arrays[key]
    if values.shape != (rows,):
        raise UserError(
            f"{path}: {key!r} has shape {values.shape}, 'x' has {rows} rows; match them"
        )
    if values.dtype.kind not in kinds:
        what = "integers" if kinds == "iu" else "integers or strings"
        raise UserError(f"{path}: {key!r} holds {values.dtype}; give {what}")


def _label_sets(path: str | Path, arrays: dict[str, np.ndarray]) -> tuple[list[Label], list[str]]:
    """Return each row's labels, of ``y [N, K]`` of 0 and 1, and the names of all K."""
    y, names = arrays["y"], [str(k) for k in range(arrays["y"].shape[1])]
    if len(y) != len(arrays["x"]) or not names:
        raise UserError(
            f"{path}: 'y' has shape {y.shape}, 'x' has {len(arrays['x'])} rows; match them"
        )
    if y.dtype.kind not in "iub" or not np.isin(y, (0, 1)).all():
        row = int(np.argmin(np.isin(y, (0, 1)).all(1))) + 1
        raise UserError(f"{path}: row {row} of 'y' [rows, labels] is {y[row - 1]}; give 0 and 1")
    if "classes" in arrays:
        given = arrays["classes"]
        if given.shape != (len(names),) or given.dtype.kind not in "iuU" or _broken(given).any():
            raise UserError(
                f"{path}: 'classes' is {given.dtype} {given.shape}; give {len(names)} names"
            )
        names = [str(name) for name in given.tolist()]
    bad = next((n for n in names if not n.strip() or not is_unicode(n)), None)
    if bad is not None:
        raise UserError(f"{path}: 'classes' has {shown(bad)}, no label; give a name")
    check_distinct(names, [str(path)] * len(names))
    return [tuple(n for n, has in zip(names, row, strict=True) if has) for row in y.tolist()], names


def _given_lengths(path: str | Path, arrays: dict[str, np.ndarray], longest: int) -> np.ndarray:
    _check_rows(path, arrays, "lengths", "iu")
    lengths = arrays["lengths"]
    bad = np.flatnonzero((lengths < 1) | (lengths > longest))
    if len(bad):
        row = bad[0]
        raise UserError(
            f"{path}: row {row + 1} has {lengths[row]} in 'lengths'; give 1 to {longest}"
        )
    return lengths.astype(np.int32)


def _token_lengths(path: str | Path, x: np.ndarray) -> np.ndarray:
    """Return where each row's trailing zeros begin; a zero before that is an error."""
    lengths = x.shape[1] - np.argmax(x[:, ::-1] != 0, axis=1)
    inner = (x == 0) & (np.arange(x.shape[1]) < lengths[:, None])
    if inner.any():
        row, column = np.argwhere(inner)[0]
        raise UserError(
            f"{path}: row {row + 1} has token 0, which is padding, at position {column + 1}; "
            "shift the ids by one, or give 'lengths'"
        )
    return lengths.astype(np.int32)


def _features(path: str | Path, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        x = (x[..., None] if x.ndim == 2 else x).astype(np.float32)
    inside = np.arange(x.shape[1]) < lengths[:, None]
    inside = inside.reshape(*x.shape[:2], *[1] * (x.ndim - 2))
    bad = np.argwhere(inside & ~np.isfinite(x))
    if len(bad):
        row, position = bad[0][:2]
        raise UserError(
            f"{path}: row {row + 1} holds {x[tuple(bad[0])]} at position {position + 1}; "
            "missing and infinite values are not supported"
        )
    return x


def _tokens(path: str | Path, x: np.ndarray) -> np.ndarray:
    bad = np.argwhere((x < 0) | (x > LARGEST_TOKEN))
    if len(bad):
        row, position = bad[0]
        raise UserError(
            f"{path}: row {row + 1} has token {x[row, position]} at position {position + 1}; "
            f"token ids are from 0 (padding) to {LARGEST_TOKEN}"
        )
    return x.astype(np.int32)


def _broken(y: np.ndarray) -> np.ndarray:
    """Return which rows hold numbers that are no characters; Python cannot make texts of these."""
    if y.dtype.kind != "U" or not y.dtype.itemsize:
        return np.zeros(len(y), bool)
    codes = np.dtype(np.uint32).newbyteorder(y.dtype.byteorder)
    numbers = np.ascontiguousarray(y).view(codes).reshape(len(y), -1)
    return numbers.max(axis=1) > sys.maxunicode


def _labels(path: str | Path, y: np.ndarray) -> list[Label]:
    if _broken(y).any():
        row = int(_broken(y).argmax()) + 1
        raise UserError(f"{path}: row {row} has broken Unicode in 'y'; write the file again")
    labels = [str(label) for label in y.tolist()]
    for row, label in enumerate(labels, start=1):
        if not label.strip() or not is_unicode(label):
            raise UserError(f"{path}: row {row} has {shown(label)} as 'y', no label; give a name")
    return [*labels]


def read_npz(path: str | Path, *, labelled: bool = False) -> Rows:
    """Read rows: features ``[N, L(, C)]``, tokens ``[N, L]`` or images ``[N, H, W, C]``.

    Labels are ``y [N]``, integers or strings; or ``y [N, K]`` of 0 and 1, where a row has any number of
    K labels, whose names may stand in ``classes [K]``. uint8 images are divided by 255. Tokens without
    ``lengths`` end at their trailing zeros. What lies beyond a row's length is not read. ``labelled``:
    whether there must be a ``y``.

    Raises:
      UserError: see ``read_arrays``; also for wrong types, shapes, lengths and values (row named).
    """
    arrays = read_arrays(path, ("x", "y") if labelled else ("x",), ("y", "lengths", "classes"))
    x, kind = arrays["x"], _layout(path, arrays["x"])
    labels: list[Label] = [None] * len(x)
    names: list[str] = []
    if "y" in arrays and arrays["y"].ndim == 2:
        labels, names = _label_sets(path, arrays)
    elif "y" in arrays:
        _check_rows(path, arrays, "y", "iuU")
        labels = _labels(path, arrays["y"])
    if kind == "images" and x.dtype == np.uint8:
        x = x.astype(np.float32) / np.float32(255)
    lengths = np.full(len(x), x.shape[1], np.int32)
    if "lengths" in arrays and kind != "images":
        lengths = _given_lengths(path, arrays, x.shape[1])
        x = x[:, : lengths.max()]
    elif kind == "tokens":
        lengths = _token_lengths(path, x)
    x = _tokens(path, x) if kind == "tokens" else _features(path, x, lengths)
    values = [row[:length] for row, length in zip(x, lengths, strict=True)]
    where = [f"{path}: row {i + 1}" for i in range(len(x))]
    return Rows(values, labels, where, kind, tuple(names))
