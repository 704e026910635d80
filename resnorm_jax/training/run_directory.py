"""The run directory: what is in it, whose it is, and that one process at a time writes into it."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from resnorm_jax.config import Config, from_dict
from resnorm_jax.data.metadata import check_meta
from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import (
    TEMPORARY,
    DamagedFileError,
    read_sealed,
    write_bytes,
    write_sealed,
)
from resnorm_jax.training.elastic import check_devices
from resnorm_jax.training.ending import at_end
from resnorm_jax.training.identity import Identity, going_on, plain
from resnorm_jax.training.lock import NAME as LOCK
from resnorm_jax.training.lock import locked

CONFIG = "config.json"
UNSEALED = frozenset({"config", "data", "runtime"})  # files of version 0.2, without a digest
KEYS = frozenset({"config", "data", "content", "runtime", "changes", "edges"})
_LEFT_OVER = re.compile(re.escape(TEMPORARY).replace(r"\{\}", ".+"))


@contextmanager
def claimed(workdir: Path) -> Iterator[None]:
    """Hold a run directory, new or a run's, for one process.

    What a killed process had half written is removed. A directory made here goes again if nothing was
    written into it.

    Raises:
      UserError: it holds something else, another process holds it, or it cannot be written into.
    """
    _check_free(workdir)
    try:
        made = [p for p in (workdir, *workdir.parents) if not p.exists()]
        workdir.mkdir(parents=True, exist_ok=True)
        with locked(workdir):
            _check_free(workdir)  # now that nobody else can write
            _clean(workdir)
            with at_end(partial(_unmake, workdir, made)):
                yield
    except OSError as error:
        if error.filename is None or not _inside(str(error.filename), workdir):
            raise
        raise UserError(
            f"--workdir: {workdir} cannot be used ({error.strerror}: {_short(error.filename)}); name a "
            "directory that can be written into"
        ) from error


def _inside(name: str, workdir: Path) -> bool:
    """Whether a path is of the directory, or of one above that had to be made."""
    return name.startswith(str(workdir)) or Path(name) in workdir.parents


def _unmake(workdir: Path, made: list[Path]) -> None:
    """Remove a directory into which nothing was written."""
    if not _names(workdir) <= {LOCK}:
        return
    with suppress(OSError):  # somebody else has begun to use it
        (workdir / LOCK).unlink(missing_ok=True)
        for path in made:
            path.rmdir()


def _check_free(workdir: Path) -> None:
    """Raise a UserError if there is something that is no run directory."""
    _check_path(workdir)
    is_link, exists, names = workdir.is_symlink(), workdir.exists(), _names(workdir)
    if is_link and not exists:
        raise UserError(f"--workdir: {workdir} is a link to nowhere; name a new directory")
    if exists and not workdir.is_dir():
        raise UserError(f"--workdir: {workdir} is a file; name a new directory")
    ours = {name for name in names if name == LOCK or _LEFT_OVER.fullmatch(name)}
    if CONFIG not in names and names - ours:
        raise UserError(
            f"--workdir: {workdir} holds other files, such as {_short(min(names - ours))}; name a new "
            "directory"
        )


def _check_path(workdir: Path) -> None:
    """Raise a UserError if a directory cannot be looked into, or links in it leave it."""
    try:
        with suppress(FileNotFoundError):
            os.lstat(workdir)  # pathlib passes over what is wrong with a name
        ours = [workdir / name for name in (CONFIG, "metrics.jsonl", "checkpoints")]
        deeper = [
            p for depth in ("*", "*/*", "*/*/*") for p in workdir.glob(f"checkpoints/{depth}")
        ]
        links = [p for p in ours + deeper if p.is_symlink()]
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        why = getattr(error, "strerror", None) or str(error)
        name = _short(ascii(str(workdir))[1:-1])
        raise UserError(
            f"--workdir: {name} cannot be used ({why}); name another directory"
        ) from error
    if links:
        raise UserError(f"{links[0]}: a link, which a run does not make; name another directory")


def _names(workdir: Path) -> set[str]:
    return set(os.listdir(workdir)) if workdir.is_dir() else set()


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= 100 else f"{text[:60]}... ({len(text)} characters)"


def _clean(workdir: Path) -> None:
    """Remove what killed processes were writing."""
    for path in workdir.iterdir():
        if _LEFT_OVER.fullmatch(path.name) and path.is_file():
            path.unlink()


def stored_run(workdir: Path) -> Identity | None:
    """Return what the run in a directory is, or None where there is none yet.

    Raises:
      UserError: its config is damaged.
    """
    return read_run(workdir)[1] if (workdir / CONFIG).exists() else None


def kept_config(workdir: Path) -> Config | None:
    """Return the config of the run in a directory, or None where there is none yet.

    Raises:
      UserError: its config is damaged.
    """
    # Path.exists raises where a name is too long; the directory itself is checked when it is claimed.
    return read_run(workdir)[0] if os.path.exists(workdir / CONFIG) else None


def open_run(workdir: Path, now: Identity, by_devices: str = "") -> Identity:
    """Write what a run is into its new directory, or check that the directory holds this very run.

    Args:
      workdir: held by this process.
      now: what was asked for.
      by_devices: why its numbers depend on the number of devices, if they do.

    Returns:
      What the run is, with all that changed since it began.

    Raises:
      UserError: the directory holds another run (what differs is named), one that cannot go on with
        another number of devices, or its config is damaged. Nothing is written then.
    """
    path = workdir / CONFIG
    if path.exists():
        config, stored = read_run(workdir)  # with the defaults of fields that are new since then
        stored = replace(stored, config=plain(asdict(config)))
        steps = steps_done(workdir)
        now = going_on(stored, now, steps, workdir)
        check_devices(stored, now, steps, by_devices, workdir)
        if now == stored:
            return now
    write_sealed(path, asdict(now))
    return now


def keep_files(workdir: Path, files: Mapping[str, bytes]) -> None:
    """Write what a run keeps of its data beside its config, unless it is there already."""
    for name, data in files.items():
        path = workdir / name
        if not path.is_file() or path.read_bytes() != data:
            write_bytes(path, data)


def read_run(workdir: Path) -> tuple[Config, Identity]:
    """Return the config, checked, and what else a run is, finished or running.

    Raises:
      UserError: if there is no run in the directory, or its config is damaged.
    """
    path = workdir / CONFIG
    stored = _read(path)
    try:
        return from_dict(stored.config), stored
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (AttributeError, TypeError, ValueError) as error:  # of a file without a digest
        raise UserError(f"{path}: damaged ({error}); train in a new directory") from None


def _read(path: Path) -> Identity:
    _check_path(path.parent)
    try:
        values = read_sealed(path, UNSEALED)
    except FileNotFoundError:
        raise UserError(
            f"{_short(path.parent)}: not a run directory: it has no {CONFIG}; name the --workdir of a "
            "training run"
        ) from None
    except DamagedFileError as error:
        raise UserError(
            f"{path}: damaged ({error}); restore it from a copy, or train in a new directory"
        ) from None
    if not (UNSEALED <= {*values} <= KEYS and all(isinstance(values[k], dict) for k in UNSEALED)):
        held = ", ".join(sorted(values))[:80] or "nothing"
        raise UserError(f"{path}: not a run's config: it holds {held}; name the directory of a run")
    check_meta(values["data"], f"{path}: data")
    longest = values["data"].get("max_length")
    if not _is_size(longest):
        raise UserError(f"{path}: data.max_length: {longest!r}; restore the run's config.json")
    changes, edges = tuple(values.pop("changes", ())), values.pop("edges", None)
    if edges is not None:
        if not isinstance(edges, list) or not edges or not all(_is_size(e) for e in edges):
            raise UserError(f"{path}: edges: {_short(edges)}; restore the run's config.json")
        edges = tuple(edges)
    return Identity(**{"content": None, **values}, changes=changes, edges=edges)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**31


def steps_done(workdir: Path) -> dict[str, int]:
    """Return the newest checkpoint's step of each seed that has one."""
    found = {}
    for path in sorted((workdir / "checkpoints").glob("seed_*")):
        steps = [
            int(m[1]) for p in path.glob("last/*") if (m := re.fullmatch(r"step_(\d+)", p.name))
        ]
        if steps:
            found[path.name] = max(steps)
    return found


def check_steps(workdir: Path, total: int) -> None:
    """Raise a UserError if a seed has done more steps than the config asks for."""
    for name, done in steps_done(workdir).items():
        if done > total:
            raise UserError(
                f"config.train: {total} steps in all, but {name} in {workdir} has done {done}; give "
                f"train.steps={done} or more, or name a new directory"
            )


def check_begun(workdir: Path, config: Config) -> None:
    """Raise a UserError if a seed has no checkpoint, and the weights that it starts from are gone."""
    done = steps_done(workdir)
    for seed in range(config.seed, config.seed + config.seeds):
        if f"seed_{seed}" not in done:
            raise UserError(
                f"config.init_from: no folder {config.init_from}, and seed {seed} has no checkpoint "
                "yet, so it starts from those weights; restore the folder"
            )


def seed_directory(workdir: Path, seed: int, kind: str) -> Path:
    """Return where a seed's checkpoints lie; ``kind`` is ``"last"`` or ``"best"``."""
    return workdir / "checkpoints" / f"seed_{seed}" / kind
