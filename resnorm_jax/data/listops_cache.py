"""The generated arrays on disk: one ``.npz`` a set of options, written whole, checked when read."""

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

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
    return (Path(folder).expanduser() if folder else default_cache()) / f"listops-{key}.npz"


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
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS}
            if str(file["sha256"]) == content_hash(arrays):
                return arrays
        reason = "content does not match its SHA-256"
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error)
    log.warning("%s: damaged cache (%s); generating again", path, reason)
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


def cached(options: Any, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays for these options from disk; else make and store them."""
    path = cache_path(options)
    arrays = read_cache(path) if path.is_file() else None
    if arrays is None:
        arrays = make()
        write_cache(path, arrays)
    return arrays
