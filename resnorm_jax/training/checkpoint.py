"""Checkpoints: Orbax arrays under a manifest of our own.

Orbax restores a flipped bit without a word and does not fall back to an older step. So each
checkpoint is one directory, made under another name and renamed when whole, with a manifest of every
file's size and SHA-256. Restoring goes from the newest to the oldest that is sound; a damaged one is
set aside, loudly.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp

from resnorm_jax.reporting.files import write_json

MANIFEST = "manifest.json"
_NAME = re.compile(r"step_(\d{9})")


class DamagedCheckpointError(RuntimeError):
    """A checkpoint's files are not those that its manifest lists."""


class CheckpointStore:
    """Checkpoints of one run in a directory; the newest ``keep`` stay.

    Args:
      directory: created on the first save.
      keep: how many to keep.
      warn: called with a line when a damaged checkpoint is set aside.
    """

    def __init__(self, directory: Path, keep: int = 2, warn: Callable[[str], None] = print) -> None:
        self.directory, self.keep, self.warn = Path(directory), keep, warn

    def steps(self) -> list[int]:
        """Return the steps of finished checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        found = (_NAME.fullmatch(p.name) for p in self.directory.iterdir())
        return sorted(int(m.group(1)) for m in found if m)

    def save(self, step: int, tree: Any, note: dict[str, Any]) -> None:
        """Write a checkpoint of a pytree of arrays, with a JSON note, and drop the oldest."""
        final = self._path(step)
        if final.exists():
            return
        partial = final.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        host = jax.tree.map(np.asarray, flax.serialization.to_state_dict(tree))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((partial / "state").resolve(), host)
        write_json(partial / MANIFEST, {"step": step, "note": note, "files": _digests(partial)})
        os.replace(partial, final)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._path(old))

    def note(self, step: int) -> dict[str, Any]:
        """Return the note of a checkpoint."""
        return json.loads((self._path(step) / MANIFEST).read_text())["note"]

    def restore(self, step: int, like: Any) -> Any:
        """Return the pytree saved at ``step``, in the structure of ``like``.

        Raises:
          DamagedCheckpointError: if a file is missing, added or changed.
        """
        path = self._path(step)
        try:
            manifest = json.loads((path / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise DamagedCheckpointError(f"{path}: no readable {MANIFEST}") from error
        found = _digests(path)
        if found != manifest["files"]:
            differ = sorted(
                name
                for name in {*found, *manifest["files"]}
                if found.get(name) != manifest["files"].get(name)
            )
            raise DamagedCheckpointError(f"{path}: {differ[0]} is not what was saved")
        target = jax.tree.map(np.asarray, flax.serialization.to_state_dict(like))
        with ocp.StandardCheckpointer() as checkpointer:
            host = checkpointer.restore((path / "state").resolve(), target)
        return flax.serialization.from_state_dict(like, host)

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """Return the newest sound checkpoint as ``(step, tree)``, or None when there is none."""
        for step in reversed(self.steps()):
            try:
                return step, self.restore(step, like)
            except DamagedCheckpointError as error:
                path = self._path(step)
                os.replace(path, path.with_suffix(".damaged"))
                self.warn(f"damaged checkpoint set aside: {error}")
        return None

    def _path(self, step: int) -> Path:
        return self.directory / f"step_{step:09d}"


def params_sha256(params: Any) -> str:
    """Return the SHA-256 over all parameters: path, dtype, shape and bytes, sorted by path."""
    digest = hashlib.sha256()
    leaves = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    for name, array in sorted(leaves, key=lambda item: item[0]):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _digests(directory: Path) -> dict[str, dict[str, Any]]:
    files = (p for p in sorted(directory.rglob("*")) if p.is_file() and p.name != MANIFEST)
    return {
        p.relative_to(directory).as_posix(): {
            "bytes": p.stat().st_size,
            "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
        }
        for p in files
    }
