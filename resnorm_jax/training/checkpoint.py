"""Checkpoints: Orbax arrays under a manifest of our own.

Orbax restores a flipped bit without a word and does not fall back to an older step. So each
checkpoint is one directory, made under another name and renamed when whole, with a manifest of every
file's size and SHA-256, and of itself. Restoring goes from the newest to the oldest that is sound; a
damaged one is set aside, loudly.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np

from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import (
    DamagedFileError,
    cannot_write,
    read_sealed,
    sync_directory,
    write_sealed,
    writing,
)
from resnorm_jax.training.laid import in_parts

MANIFEST = "manifest.json"
FORMAT = 1  # of the saved state; a state of another format is refused
UNSEALED = frozenset(
    {"step", "note", "files"}
)  # manifests of version 0.2, without format and digest
SPARE = 2**20  # bytes that a checkpoint takes beside its arrays, and the log until the next one
Note = dict[str, Any]
_NAME = re.compile(r"step_(\d{9})")
_NUMBERS = count()  # of what asks Orbax: processes do it in the same order


class DamagedCheckpointError(RuntimeError):
    """A checkpoint's files are not those that its manifest lists."""


class CheckpointStore:
    """Checkpoints of one run in a directory; some of them stay.

    Args:
      directory: created on the first save.
      keep: how many to keep: the newest, or by ``rank``.
      warn: called with a line when a damaged checkpoint is set aside.
      every: those at multiples of so many steps stay for good; None for no such.
      period: steps between two regular ones, which ``keep`` counts; what a signal saved between them
        stays only as long as it is the newest. 1 counts all.
      rank: note to what those that stay are largest in; None for the step.
    """

    def __init__(
        self,
        directory: Path,
        keep: int = 2,
        warn: Callable[[str], None] = print,
        every: int | None = None,
        period: int = 1,
        rank: Callable[[Note], Any] | None = None,
    ) -> None:
        self.directory, self.keep, self.warn = Path(directory), keep, warn
        self.every, self.period, self.rank = every, period, rank

    def steps(self) -> list[int]:
        """Return the steps of finished checkpoints, ascending."""
        if not self.directory.is_dir():
            return []
        found = (_NAME.fullmatch(p.name) for p in self.directory.iterdir())
        return sorted(int(m.group(1)) for m in found if m)

    def ranked(self) -> list[int]:
        """Return the steps of finished checkpoints, the best last; of equal ones the earlier.

        Raises:
          DamagedCheckpointError: a manifest that has to be looked into is damaged.
        """
        steps, rank = self.steps(), self.rank
        if rank is None:
            return steps
        return sorted(steps, key=lambda step: (rank(self.note(step)), -step))

    def save(self, step: int, tree: Any, note: Note) -> None:
        """Write a checkpoint of a pytree of arrays, with a JSON note, and drop those not kept.

        One of this step that is there already stays, unless checkpoints are ranked.

        Raises:
          UserError: it cannot be written. The others are as they were.
        """
        final = self._path(step)
        if final.exists() and self.rank is None:
            return
        host = jax.tree.map(np.asarray, flax.serialization.to_state_dict(tree))
        self.write_arrays(self.begin(step, host), host)
        self.finish(step, note)

    def begin(self, step: int, host: Any) -> Path:
        """Make room for the arrays of a checkpoint; return where they are to be written."""
        partial = self._path(step).with_suffix(".partial")
        with writing(self._path(step)):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        self._check_space(host)
        return partial / "state"

    def finish(self, step: int, note: Note) -> None:
        """Write the manifest of what was written, give the checkpoint its name, and drop others."""
        final = self._path(step)
        partial = final.with_suffix(".partial")
        with writing(final):
            files = _digests(partial)
            write_sealed(
                partial / MANIFEST, {"format": FORMAT, "step": step, "note": note, "files": files}
            )
            self._put(partial, final)
            sync_directory(self.directory)
            self._drop()

    def _put(self, partial: Path, final: Path) -> None:
        before = final.with_suffix(".replaced")
        if final.exists():  # of a way that the run has been rolled back from
            shutil.rmtree(before, ignore_errors=True)
            os.replace(final, before)
        os.replace(partial, final)
        shutil.rmtree(before, ignore_errors=True)

    def _check_space(self, host: Any) -> None:
        """Refuse where the state does not fit: Orbax would leave tracebacks of its threads behind."""
        needed = SPARE + sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(host))
        with writing(self.directory):
            free = shutil.disk_usage(self.directory).free
        if free < needed:
            why = (
                f"No space left on device: {needed / 2**20:.1f} MiB needed, {free / 2**20:.1f} free"
            )
            raise cannot_write(self.directory, why)

    def write_arrays(self, path: Path, host: Any) -> None:
        """Write a pytree of arrays with Orbax; several processes do it together."""
        try:
            with _checkpointer() as checkpointer:
                checkpointer.save(path.resolve(), host)
        except Exception as error:  # whatever a file system refuses, Orbax has an error of its own
            lines = str(error).strip().splitlines() or [type(error).__name__]
            full = [line for line in lines if "space" in line or "large" in line]
            raise cannot_write(path.parent, (full or lines)[0][:200]) from error

    def _drop(self) -> None:
        steps = self.ranked()
        regular = [step for step in steps if step % self.period == 0]
        others = int(regular[-1:] != steps[-1:])
        kept = {*regular[-max(1, self.keep - others) :], steps[-1]}
        for old in set(steps) - kept:
            if self.every is None or old % self.every:
                shutil.rmtree(self._path(old))

    def drop_after(self, step: int) -> None:
        """Remove the checkpoints of later steps."""
        for late in self.steps():
            if late > step:
                shutil.rmtree(self._path(late))

    def note(self, step: int) -> Note:
        """Return the note of a checkpoint.

        Raises:
          DamagedCheckpointError: its manifest is not as it was written.
        """
        return self._manifest(step)["note"]

    def _manifest(self, step: int) -> dict[str, Any]:
        path = self._path(step)
        try:
            manifest = read_sealed(path / MANIFEST, UNSEALED)
        except FileNotFoundError:
            raise DamagedCheckpointError(f"{path}: it has no {MANIFEST}") from None
        except DamagedFileError as error:
            raise DamagedCheckpointError(f"{path}: its {MANIFEST} {error}") from None
        if manifest["step"] != step:
            raise DamagedCheckpointError(f"{path}: its {MANIFEST} is of step {manifest['step']}")
        if not all(isinstance(manifest[key], dict) for key in ("note", "files")):
            raise DamagedCheckpointError(f"{path}: its {MANIFEST} is not what was saved")
        if manifest.get("format", FORMAT) != FORMAT:
            raise UserError(
                f"{path}: the state is of format {manifest['format']}, this version of resnorm_jax "
                f"reads {FORMAT}; use the version that the run was started with"
            )
        return manifest

    def check(self, step: int) -> None:
        """Raise DamagedCheckpointError unless all files of a checkpoint are those that were saved."""
        path, manifest = self._path(step), self._manifest(step)
        found, files = _digests(path), manifest["files"]
        differ = sorted(n for n in {*found, *files} if found.get(n) != files.get(n))
        if differ:
            raise DamagedCheckpointError(f"{path}: {differ[0]} is not what was saved")

    def restore(self, step: int, like: Any) -> Any:
        """Return the pytree saved at ``step``, in the structure of ``like``.

        Raises:
          DamagedCheckpointError: if a file is missing, added or changed.
        """
        self.check(step)
        return self.read(step, like)

    def read(self, step: int, like: Any) -> Any:
        """Return the pytree saved at ``step``, whose files were checked.

        It is on the host, but for arrays that lie in parts over several processes in ``like``: of those
        each process reads its own parts, whoever wrote them.
        """
        target = jax.tree.map(_target, flax.serialization.to_state_dict(like))
        with _checkpointer() as checkpointer:
            host = checkpointer.restore((self._path(step) / "state").resolve(), target)
        return flax.serialization.from_state_dict(like, host)

    def restore_latest(self, like: Any) -> tuple[int, Any] | None:
        """Return the newest sound checkpoint as ``(step, tree)``, or None when there is none."""
        step = self.newest_sound()
        return None if step is None else (step, self.read(step, like))

    def newest_sound(self) -> int | None:
        """Return the newest step whose files are those that were saved; damaged ones are set aside."""
        for step in reversed(self.steps()):
            try:
                self.check(step)
                return step
            except DamagedCheckpointError as error:
                self._set_aside(step)
                self.warn(f"damaged checkpoint set aside: {error}")
        return None

    def _set_aside(self, step: int) -> None:
        path = self._path(step)
        names = (path.with_suffix(f".damaged{number or ''}") for number in range(1000))
        with writing(path):
            os.replace(path, next(name for name in names if not name.exists()))

    def _path(self, step: int) -> Path:
        return self.directory / f"step_{step:09d}"


def _target(leaf: Any) -> Any:
    """Return what Orbax is to read an array as."""
    if in_parts(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
    return np.asarray(leaf)


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
    """Return size and digest of every file; a link counts as what it is, and is never followed."""
    out: dict[str, dict[str, Any]] = {}
    for p in sorted(directory.rglob("*")):
        name = p.relative_to(directory).as_posix()
        if p.is_symlink():
            out[name] = {"link": os.readlink(p)}
        elif p.is_file() and name != MANIFEST:
            with p.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            out[name] = {"bytes": p.stat().st_size, "sha256": digest}
    return out


def _checkpointer() -> Any:
    """Return Orbax's; imported late, since the first step of a run need not wait for it.

    Where processes are named, Orbax waits for them in the coordination service, else by a collective,
    which a process that comes late makes fail; see `first_runs`.
    """
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    options = ocp.options.MultiprocessingOptions(
        active_processes=set(range(jax.process_count())),
        barrier_sync_key_prefix=f"resnorm/{next(_NUMBERS)}",
    )
    return ocp.StandardCheckpointer(multiprocessing_options=options)
