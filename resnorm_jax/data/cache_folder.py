"""Entries of the user's cache folder: each a folder that appears whole, of bounded size together."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from time import time
from typing import Any

from resnorm_jax.data.listops_cache import default_cache
from resnorm_jax.data.text_lines import file_size
from resnorm_jax.errors import UserError

LIMIT = 20 * 2**30  # bytes of all entries in the cache
DAY = 86_400  # seconds after which what a killed process was writing is removed


def cache_base(cache: str) -> Path:
    """Return the folder that ``data.cache`` names; the user's cache folder if it is empty."""
    try:
        return Path(cache).expanduser() if cache else default_cache()
    except RuntimeError as error:
        raise UserError(f"data.cache: {cache!r}: {error} Give the folder's whole path") from error


def content_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of all its files with their names."""
    if not os.path.isdir(path):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for inside in sorted(p for p in Path(path).rglob("*") if p.is_file()):
        digest.update(f"{inside.relative_to(path)} {content_sha256(inside)}\n".encode())
    return digest.hexdigest()


def cache_key(what: Mapping[str, Any]) -> str:
    """Return a hash of JSON-able values."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def version_of(package: str) -> str:
    """Return a package's version; "" where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # bytes need none
        return ""


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """Give a folder to write into, which takes its place in the cache when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=".text-"))
    try:
        yield temporary
        _make_room(place.parent, file_size(temporary))
        shutil.rmtree(place, ignore_errors=True)  # a damaged one
        os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _make_room(base: Path, needed: int) -> None:
    """Remove what was used longest ago until the rest fits, and what killed processes left."""
    for path in base.glob(".text-*"):
        if time() - path.stat().st_mtime > DAY:
            shutil.rmtree(path, ignore_errors=True)
    kept = sorted(base.glob("text-*"), key=lambda path: path.stat().st_mtime)
    sizes = [file_size(path) for path in kept]
    for path, size in zip(kept, sizes, strict=True):
        if needed + sum(sizes) > LIMIT:
            shutil.rmtree(path, ignore_errors=True)
            sizes[sizes.index(size)] = 0
