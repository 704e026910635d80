"""Token ids of large files in the user's cache folder: written whole, checked when read, bounded.

A file's ids are a folder ``text-KEY``: ``ids.npy``, ``offsets.npy``, ``labels.npy`` and ``cut.npy``
(memory maps when read), and ``about.json`` with the names of the labels and the SHA-256 of each
file. The key is a hash of the file's content, of what is read from it and of the tokenizer.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from resnorm_jax.data.bar import progress
from resnorm_jax.data.cache_folder import (
    cache_base,
    cache_key,
    content_sha256,
    new_folder,
    version_of,
)
from resnorm_jax.data.encoded import ARRAYS, Encoded, Names, encode_in_memory, encode_to
from resnorm_jax.data.row_arrays import Store
from resnorm_jax.data.rows import Rows
from resnorm_jax.data.text_columns import Columns
from resnorm_jax.data.text_files import read_chunks
from resnorm_jax.data.text_lines import file_size
from resnorm_jax.data.tokenization import Tokenizer
from resnorm_jax.errors import UserError

FORMAT = 1
SMALL = 2**24  # bytes of a file that is encoded each time
log = logging.getLogger(__name__)
Told = Callable[[int], None]


def encoded_file(
    path: str | Path, columns: Columns, tokenizer: Tokenizer, cache: str = ""
) -> tuple[Encoded, bool]:
    """Return a file's rows as token ids, and whether they came from the cache.

    Args:
      path: of a file or folder of labelled texts.
      columns: to read.
      tokenizer: of the texts.
      cache: folder of the cache; the user's if empty. Files of under 16 MiB are not cached.

    Raises:
      UserError: see `read_chunks`; also for a folder that has no whole path.
    """
    with progress(f"reading {Path(path).name}") as bar:
        if file_size(path) < SMALL:
            return encode_in_memory(read_chunks(path, columns), tokenizer, bar.update), False
        folder = cache_base(cache) / f"text-{cache_key(_of_rows(path, columns, tokenizer))}"
        found = _read(folder)
        if found is not None:
            return found, True
        return _made(folder, lambda: read_chunks(path, columns), tokenizer, bar.update), False


def kept_bytes(
    path: str | Path,
    columns: Columns,
    what: Mapping[str, Any],
    cache: str,
    make: Callable[[], bytes],
) -> bytes:
    """Return what was made from a large file's texts, such as a tokenizer, from the cache or anew.

    Args:
      path: of the file; what comes of a small one is made each time.
      columns: that are read from it.
      what: is made, and how.
      cache: as of `encoded_file`.
      make: makes it.
    """
    if file_size(path) < SMALL:
        return make()
    place = cache_base(cache) / f"text-{cache_key({**_of_file(path, columns), **what})}"
    try:
        seal, _, data = (place / "made").read_bytes().partition(b"\n")
        if seal == hashlib.sha256(data).hexdigest().encode():
            os.utime(place)
            return data
        log.warning("%s: damaged cache (its SHA-256 differs); making it again", place)
    except FileNotFoundError:
        pass
    except OSError as error:
        log.warning("%s: damaged cache (%s); making it again", place, error)
    data = make()
    seal = hashlib.sha256(data).hexdigest().encode()
    try:
        with new_folder(place) as temporary:
            (temporary / "made").write_bytes(seal + b"\n" + data)
    except OSError as error:
        log.warning("%s: the cache cannot be written (%s); going on without", place, error)
    return data


def _of_file(path: str | Path, columns: Columns) -> dict[str, Any]:
    try:
        digest = content_sha256(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    packages = {name: version_of(name) for name in ("tokenizers", "sentencepiece")}
    # The path is part of it, since messages name it.
    return {"format": FORMAT, "file": [str(path), digest], "columns": asdict(columns), **packages}


def _of_rows(path: str | Path, columns: Columns, tokenizer: Tokenizer) -> dict[str, Any]:
    names = hashlib.sha256(json.dumps(tokenizer.names).encode()).hexdigest()
    return {
        **_of_file(path, columns),
        "tokenizer": dict(tokenizer.encoding),
        "names": names,
    }


def _made(
    folder: Path, chunks: Callable[[], Iterable[Rows]], tokenizer: Tokenizer, told: Told
) -> Encoded:
    """Encode rows into the cache; in memory where it cannot be written."""
    try:
        with new_folder(folder) as temporary:
            names = encode_to(temporary, chunks(), tokenizer, told)
            _seal(temporary, names)
        return _mapped(folder, *names)
    except OSError as error:
        log.warning("%s: the cache cannot be written (%s); going on in memory", folder, error)
    return encode_in_memory(chunks(), tokenizer, told)


def _mapped(folder: Path, names: Iterable[Any], places: Iterable[str]) -> Encoded:
    """Return the arrays of a folder, as memory maps; what is made of them lies beside the folder."""
    made = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    beside = Store(folder.parent)
    return Encoded(**made, names=tuple(names), places=tuple(places), store=beside)


def _seal(folder: Path, names: Names) -> None:
    """Write what all of the folder is."""
    about: dict[str, Any] = {
        "names": list(names[0]),
        "places": list(names[1]),
        "sha256": {name: content_sha256(folder / f"{name}.npy") for name in ARRAYS},
    }
    text = json.dumps(about)
    about["seal"] = hashlib.sha256(text.encode()).hexdigest()
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _read(folder: Path) -> Encoded | None:
    """Return what a folder of the cache holds, or None (with a logged note) if it is damaged."""
    if not folder.is_dir():
        return None
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        seal = about.pop("seal")
        sound = seal == hashlib.sha256(json.dumps(about).encode()).hexdigest() and all(
            content_sha256(folder / f"{name}.npy") == digest
            for name, digest in about["sha256"].items()
        )
        if sound:
            os.utime(folder)
            names = [tuple(n) if isinstance(n, list) else n for n in about["names"]]
            return _mapped(folder, names, about["places"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s: damaged cache (%s); reading the file again", folder, error)
        return None
    log.warning("%s: damaged cache (its SHA-256 differs); reading the file again", folder)
    return None
