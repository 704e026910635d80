"""Folders of Hugging Face checkpoints: config.json, safetensors in one file or several, their index.

Nothing is unpickled, and no path that a file names may leave the folder.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from resnorm_jax.data.checks import import_extra
from resnorm_jax.data.names import shown
from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import TEMPORARY

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "merges.txt",
    "vocab.json",
    "spiece.model",
    "preprocessor_config.json",
)
MOST_JSON = 64 * 2**20  # bytes
SHARD = 5 * 2**30  # bytes of a file that is written


def exists(path: Path) -> bool:
    """Whether a path is there; no for one that cannot be, such as a name of 300 letters.

    `Path.exists` raises for that one before Python 3.14.
    """
    return os.path.exists(path)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
      UserError: it is not there, too large, or no JSON; naming the line.
    """
    try:
        if path.stat().st_size > MOST_JSON:
            raise UserError(
                f"{path}: over {MOST_JSON >> 20} MiB, too large for a JSON of this kind"
            )
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; name a folder of a Hugging Face checkpoint"
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: no JSON: {error.msg}; fetch it again") from None
    except (UnicodeDecodeError, RecursionError):
        raise UserError(f"{path}: no JSON in UTF-8; fetch it again") from None


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; UserError where it holds something else."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: {shown(found)} is no object; fetch it again")
    return found


def _files(folder: Path) -> dict[str, Path]:
    """Return name to file of every array, by the index; empty without one."""
    path = folder / INDEX
    weights = read_object(path).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(v, str) for v in weights.values()):
        raise UserError(f"{path}: no weight_map from names to files; fetch it again")
    for name, file in weights.items():
        # A name alone: neither a folder, nor one above, nor another drive.
        if Path(file).name != file or file in ("", ".", "..") or "\\" in file:
            raise UserError(
                f"{path}: {shown(name)} is said to stand in {shown(file)}, which is not inside the "
                "folder; fetch the checkpoint from where you trust it"
            )
    return {name: folder / file for name, file in weights.items()}


class Tensors(Mapping[str, np.ndarray]):
    """The arrays of a checkpoint by name, read one at a time when they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Look into a folder.

        Raises:
          UserError: there are no safetensors, or a header is damaged.
        """
        self._library = import_extra("safetensors", "safetensors", "text", str(folder))
        self._open: dict[Path, Any] = {}
        if exists(folder / INDEX):
            self._files = _files(folder)
        elif exists(folder / WEIGHTS):
            path = folder / WEIGHTS
            self._files = dict.fromkeys(self._reader(path).keys(), path)
        else:
            pickled = sorted(p.name for p in folder.glob("*.bin")) if exists(folder) else []
            said = f"; {pickled[0]} is a pickle, which is code and is not read" if pickled else ""
            raise UserError(f"{folder}: no {WEIGHTS} and no {INDEX}{said}; save as safetensors")
        for path in self.paths:
            inside = set(self._reader(path).keys())
            gone = [n for n, at in self._files.items() if at == path and n not in inside]
            if gone:
                raise UserError(f"{path}: no array {gone[0]!r}, which the index says it has")

    @property
    def paths(self) -> list[Path]:
        """The files, by name."""
        return sorted(set(self._files.values()))

    def _reader(self, path: Path) -> Any:
        if path not in self._open:
            try:
                self._open[path] = self._library.safe_open(str(path), framework="flax")
            except (OSError, self._library.SafetensorError) as error:
                raise UserError(
                    f"{path}: no sound safetensors file ({' '.join(str(error).split())[:100]}); "
                    "fetch it again"
                ) from None
        return self._open[path]

    def __getitem__(self, name: str) -> np.ndarray:
        path = self._files[name]
        try:
            with jax.ensure_compile_time_eval():  # it makes JAX's arrays, for bfloat16
                return np.asarray(self._reader(path).get_tensor(name))
        except self._library.SafetensorError as error:
            raise UserError(f"{path}: {name}: {error}; fetch it again") from None

    def __contains__(self, name: object) -> bool:
        return name in self._files  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def weights_sha256(folder: Path) -> str:
    """Return the SHA-256 of a checkpoint's weights: of its files' digests, in the order of their names.

    Raises:
      UserError: there are none.
    """
    found = hashlib.sha256()
    for path in Tensors(folder).paths:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def check_new(folder: Path) -> None:
    """Raise UserError where a folder to write is there already, or cannot be."""
    try:
        os.lstat(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"--output: {folder}: {error.strerror}; name another folder") from None
    raise UserError(f"--output: {folder} is there already; name a new folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write into, which becomes ``folder`` once all is written.

    Raises:
      UserError: it is there already, or cannot be made.
    """
    check_new(folder)
    part = folder.with_name(TEMPORARY.format(folder.name[:150], os.getpid()))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
    except OSError as error:
        raise UserError(f"--output: {folder}: {error.strerror}; name another folder") from None
    try:
        yield part
        part.rename(folder)
    except BaseException:
        for path in part.iterdir():
            path.unlink()
        part.rmdir()
        raise


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray], shard: int = SHARD) -> None:
    """Write arrays as safetensors, with an index where they need more than one file."""
    import_extra("safetensors", "safetensors", "text", str(folder))
    from safetensors.numpy import save_file

    shards: list[dict[str, np.ndarray]] = [{}]
    size = 0
    for name, value in tensors.items():
        if size + value.nbytes > shard and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = np.asarray(value, order="C")
        size += value.nbytes
    told = {"format": "pt"}  # without which transformers does not read them
    if len(shards) == 1:
        save_file(shards[0], str(folder / WEIGHTS), metadata=told)
        return
    index: dict[str, str] = {}
    for number, part in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(part, str(folder / file), metadata=told)
        index |= dict.fromkeys(part, file)
    total = sum(value.nbytes for value in tensors.values())
    said = {"metadata": {"total_size": total}, "weight_map": index}
    (folder / INDEX).write_text(json.dumps(said, indent=2), "utf-8")
