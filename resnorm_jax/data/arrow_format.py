"""Rows of Parquet files and of saved Hugging Face data sets, read batch by batch through pyarrow."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from resnorm_jax.data.checks import import_extra
from resnorm_jax.data.csv_format import Row
from resnorm_jax.data.files import file_fault, read_bytes
from resnorm_jax.data.names import shown
from resnorm_jax.data.text_columns import placed
from resnorm_jax.errors import UserError

ROWS = 1000  # of a batch
STATE, SPLITS, INFO = "state.json", "dataset_dict.json", "dataset_info.json"
SCHEMA_KEY = b"huggingface"  # of what `datasets` writes into a schema's metadata
Names = Mapping[str, Sequence[str]]


def _pyarrow(module: str = "pyarrow") -> ModuleType:
    return import_extra(module, "pyarrow", "text")


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """Tell in one line what pyarrow says of a file that it cannot read."""
    library = _pyarrow()
    try:
        yield
    except (library.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        if isinstance(error, UserError):
            raise
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"{path}: not {what}, or damaged ({why}); write it again, or give another file"
        ) from error


def parquet_table(path: str | Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield ``(file: row i, {column: value})`` of each row of a Parquet file, counted from 1.

    Args:
      path: of the file.
      columns: that are read if the file has them, by name or by place from 1.

    Raises:
      UserError: no plain file, no Parquet file, damaged, or without rows.
    """
    path = Path(path)
    fault = file_fault(path)
    if fault:
        raise UserError(f"{path}: {fault}")
    if not os.path.getsize(path):
        raise UserError(f"{path}: the file is empty; give a file with at least one row")
    parquet, number = _pyarrow("pyarrow.parquet"), 0
    with _reading(path, "a Parquet file"), parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        wanted, names = _wanted(schema, columns), class_names(schema)
        for batch in file.iter_batches(batch_size=ROWS, columns=wanted):
            yield from _batch_rows(batch, schema.names, names, f"{path}: row", number)
            number += batch.num_rows
    _check_rows(path, number)


def saved_table(folder: str | Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a data set that Hugging Face's ``datasets`` has saved by ``save_to_disk``.

    Args:
      folder: with ``state.json`` and the Arrow files that it names.
      columns: that are read if there are such, by name or by place from 1.

    Raises:
      UserError: a file is missing, damaged, lies outside of the folder, or there are no rows.
    """
    folder, number = Path(folder), 0
    for path in _arrow_files(folder):
        with _reading(path, "an Arrow file"):
            for batch in _batches(path):
                names, header = class_names(batch.schema), batch.schema.names
                chosen = batch.select(_wanted(batch.schema, columns))
                yield from _batch_rows(chosen, header, names, f"{folder}: row", number)
                number += batch.num_rows
    _check_rows(folder, number)


def _batches(path: Path) -> Iterator[Any]:
    """Yield a file's record batches, cut into pieces of `ROWS`."""
    library = _pyarrow()
    with library.OSFile(str(path)) as file, library.ipc.open_stream(file) as stream:
        for batch in stream:
            for start in range(0, batch.num_rows, ROWS):
                yield batch.slice(start, ROWS)


def _batch_rows(
    batch: Any, header: Sequence[str], names: Names, place: str, done: int
) -> Iterator[Row]:
    values = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    for name in values.keys() & names.keys():
        values[name] = [_class_names(names[name], v) for v in values[name]]
    missing = dict.fromkeys(header)  # all columns, in order, so that a message can name them
    for i in range(batch.num_rows):
        yield f"{place} {done + i + 1}", missing | {k: v[i] for k, v in values.items()}


def _class_names(names: Sequence[str], value: Any) -> Any:
    if isinstance(value, list):
        return [_class_name(names, v) for v in value]
    return _class_name(names, value)


def _class_name(names: Sequence[str], value: Any) -> Any:
    inside = isinstance(value, int) and 0 <= value < len(names)
    return names[value] if inside else value


def _wanted(schema: Any, columns: Sequence[str]) -> list[str]:
    return [name for name in schema.names if name in {placed(c, schema.names) for c in columns}]


def class_names(schema: Any) -> dict[str, Sequence[str]]:
    """Return the names of classes that `datasets` keeps beside columns of whole numbers."""
    try:
        about = json.loads((schema.metadata or {}).get(SCHEMA_KEY, b"{}"))
        features = about.get("info", {}).get("features", {})
        inner = {column: f.get("feature") or f for column, f in features.items()}  # of lists
        return {column: f["names"] for column, f in inner.items() if _is_label(f)}
    except (ValueError, AttributeError, TypeError):
        return {}


def _is_label(feature: Any) -> bool:
    names = feature.get("names") if isinstance(feature, Mapping) else None
    return isinstance(names, list) and all(isinstance(name, str) for name in names)


def _check_rows(path: Path, number: int) -> None:
    if not number:
        raise UserError(f"{path}: no rows; give at least one")


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise (
            error
            if isinstance(error, UserError)
            else UserError(f"{path}: damaged JSON ({str(error)[:100]}); save the data set again")
        ) from None
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: {shown(value)} is no object; save the data set again")
    return value


def _arrow_files(folder: Path) -> list[Path]:
    state = folder / STATE
    listed = _json(state).get("_data_files")
    try:
        names = [str(item["filename"]) for item in listed or ()]
    except (TypeError, KeyError):
        names = []
    if not names:
        raise UserError(f"{state}: it names no files under '_data_files'; save the data set again")
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{state}: {shown(name)} lies outside of the folder; save it again")
        fault = file_fault(folder / name)
        if fault:
            raise UserError(f"{folder / name}: {fault}")
    return [folder / name for name in names]


def split_names(folder: Path) -> list[str]:
    """Return the splits of a saved dictionary of data sets, each a folder of its own.

    Raises:
      UserError: its list is damaged, or names what is no folder inside.
    """
    listed = _json(folder / SPLITS).get("splits")
    for name in listed if isinstance(listed, list) else [None]:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_dir():
            raise UserError(
                f"{folder / SPLITS}: {shown(name)} is no split; save the data set again"
            )
    return list(listed or [])
