"""Scalars for TensorBoard, where tensorboardX is installed. The only file that imports it."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from resnorm_jax.reporting.files import ROW_KEYS


def _tensorboardx() -> Any:
    """Import what is used of tensorboardX without torch, which it imports wherever that is installed.

    That would take seconds. Its `SummaryWriter` is not used: it writes in a thread, where nobody can be
    told that a disk is full.
    """
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it fails at once
    try:
        import tensorboardX  # noqa: F401  # absent, its parts are not looked for
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import scalar
    finally:
        if absent:
            del sys.modules["torch"]
    return SimpleNamespace(
        EventsWriter=EventsWriter, Event=Event, SessionLog=SessionLog, scalar=scalar
    )


class Scalars:
    """Writes the numbers of metrics rows under ``name/split``, e.g. ``loss/train``.

    Does nothing where tensorboardX is missing, and nothing more once it could not write: training goes
    on without TensorBoard. Give each seed a directory of its own, so that TensorBoard shows seeds as
    runs.

    Args:
      directory: where the event files go.
      resumed_step: the last step to keep of what an earlier process wrote there, 0 for none of it;
        None in a new run.
      warn: called with a line when events cannot be written.
    """

    def __init__(
        self,
        directory: str | Path,
        resumed_step: int | None = None,
        warn: Callable[[str], None] = print,
    ):
        self._writer: Any = None
        self._directory, self._warn = Path(directory), warn
        try:
            self._parts = _tensorboardx()
        except ImportError:
            return
        self._try(self._open, resumed_step)

    def _try(self, function: Callable[..., None], *given: Any) -> None:
        try:
            function(*given)
        except OSError as error:
            self._writer = None
            self._warn(f"{self._directory}: no events for TensorBoard ({error.strerror or error})")

    def _open(self, resumed_step: int | None) -> None:
        # File names hold seconds: a quick resume would otherwise overwrite what it continues.
        suffix = "" if resumed_step is None else f".from{resumed_step}"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._writer = self._parts.EventsWriter(str(self._directory / "events"), suffix)
        if (
            resumed_step is not None
        ):  # TensorBoard hides earlier files' events at and past this step
            start = self._parts.SessionLog(status=self._parts.SessionLog.START)
            self._put(step=resumed_step + 1, session_log=start)

    def _put(self, **fields: Any) -> None:
        self._writer.write_event(self._parts.Event(wall_time=time.time(), **fields))
        self._writer.flush()

    def write(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of one row, as given to ``MetricsLog.append``."""
        found = [
            self._parts.scalar(f"{name}/{row['split']}", value)
            for name, value in row.items()
            if self._writer and name not in ROW_KEYS and isinstance(value, (int, float))
        ]
        if found:  # as one event, since each waits for the disk
            for more in found[1:]:
                found[0].MergeFrom(more)
            self._try(lambda: self._put(step=row["step"], summary=found[0]))

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._try(self._writer.close)
            self._writer = None

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
