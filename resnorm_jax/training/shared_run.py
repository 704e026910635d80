"""One run directory, one log and one report, whatever the number of processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from resnorm_jax.training.ending import temporary_directory
from resnorm_jax.training.identity import Identity
from resnorm_jax.training.processes import code_sha256, current, sha256
from resnorm_jax.training.run_directory import stored_run


@contextmanager
def outputs(workdir: Path) -> Iterator[Path]:
    """Yield where this process writes: the run directory in process 0, in others a temporary one.

    So all do the same, one directory has what comes of it, and one lock is held.
    """
    if current().first:
        yield workdir
        return
    with temporary_directory("resnorm_process_") as temporary:
        yield temporary


def shared_run(workdir: Path) -> Identity | None:
    """Return what the run in process 0's directory is, in every process; see `stored_run`."""

    def found() -> dict | None:
        stored = stored_run(workdir)
        return None if stored is None else asdict(stored)

    if not current().several:
        return stored_run(workdir)
    values = current().shared(found)
    if values is None:
        return None
    edges = values.pop("edges")
    changes = tuple(values.pop("changes"))
    return Identity(**values, changes=changes, edges=None if edges is None else tuple(edges))


def check_alike(now: Identity) -> None:
    """Make sure that all processes have the same config, data and code.

    Raises:
      UserError: in a process that differs from process 0; what differs is named.
    """
    if not current().several:
        return
    runtime = {name: value for name, value in now.runtime.items() if name != "deterministic"}
    current().agree(
        "a config, data or code",
        {
            "config": now.config,
            "content": now.content or {},
            "data": {name: sha256(value) for name, value in now.data.items()},
            "edges": list(now.edges or ()),
            "runtime": runtime,
            "code": {"sha256": code_sha256()},
        },
    )
