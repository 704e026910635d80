"""The generated arrays on disk: one ``.npz`` a set of options, written whole, checked when read."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.data.npz_members import read_arrays
from resnorm_jax.errors import UserError

FORMAT = 1
KEYS = ("tokens", "lengths", "labels")
log = logging.getLogger(__name__)


def default_cache() -> Path:
    """Return ``$XDG_CACHE_HOME/resnorm_jax``, or ``~/.cache/resnorm_jax``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "resnorm_jax"


def cache_path(options: Any) -> Path:
    """Return the file for these options; its name holds a hash of them and of the format."""
    fields = asdict(options)
    folder = fields.pop("cache")
    text = json.dumps({"format": FORMAT, **fields}, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    try:
        base = Path(folder).expanduser() if folder else default_cache()
    except RuntimeError as error:
        raise UserError(f"data.cache: {folder!r}: {error} Give the folder's whole path") from error
    return base / f"listops-{key}.npz"


def content_hash(arrays: dict[str, np.ndarray]) -> str:
    """Return the SHA-256 of the arrays' shapes, types and bytes."""
    digest = hashlib.sha256()
    for key in KEYS:
        digest.update(f"{key} {arrays[key].dtype.str} {arrays[key].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


def read_cache(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of a cache file, or None (with a logged note) if it is damaged."""
    try:
        arrays = read_arrays(path, (*KEYS, "sha256"))
    except UserError as error:
        log.warning("damaged cache: %s; generating again", error)
        return None
    if str(arrays.pop("sha256")) == content_hash(arrays):
        return arrays
    log.warning("%s: damaged cache (content does not match its SHA-256); generating again", path)
    return None


def write_cache(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays beside the target and move them there in one step; log what fails."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            columns: dict[str, Any] = dict(arrays)
            np.savez(file, sha256=np.array(content_hash(arrays)), **columns)
        os.replace(temporary, path)
    except OSError as error:
        log.warning("%s: the cache cannot be written (%s); going on without", path, error)
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _fits(path: Path, arrays: dict[str, np.ndarray], rows: int) -> bool:
    """Return whether the arrays are of so many rows; a file that was renamed holds others."""
    lengths, labels, tokens = arrays["lengths"], arrays["labels"], arrays["tokens"]
    fits = lengths.shape == labels.shape == (rows,) and tokens.shape == (lengths.sum(),)
    if not fits:
        log.warning("%s: the cache is of other options; generating again", path)
    return fits


def cached(
    options: Any, rows: int, make: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the arrays of so many rows for these options from disk; else make and store them."""
    path = cache_path(options)
    arrays = read_cache(path) if os.path.isfile(path) else None
    if arrays is not None and not _fits(path, arrays, rows):
        arrays = None
    if arrays is None:
        arrays = make()
        write_cache(path, arrays)
    return arrays
