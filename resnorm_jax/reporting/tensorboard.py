"""Scalars for TensorBoard, where tensorboardX is installed. The only file that imports it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnorm_jax.reporting.files import ROW_KEYS


def _summary_writer() -> Any:
    """Import tensorboardX without torch, which it imports for seconds wherever that is installed."""
    absent = "torch" not in sys.modules
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it fails at once
    try:
        from tensorboardX import SummaryWriter
    finally:
        if absent:
            del sys.modules["torch"]
    return SummaryWriter


class Scalars:
    """Writes the numbers of metrics rows under ``name/split``, e.g. ``loss/train``.

    Does nothing where tensorboardX is missing. Give each seed a directory of its own, so that
    TensorBoard shows seeds as runs.

    Args:
      directory: where the event files go.
      resumed_step: the last step to keep of what an earlier process wrote there, 0 for none of it;
        None in a new run.
    """

    def __init__(self, directory: str | Path, resumed_step: int | None = None):
        self._writer: Any = None
        try:
            make = _summary_writer()
        except ImportError:
            return
        # TensorBoard hides what earlier event files hold at and past this step.
        purge = None if resumed_step is None else resumed_step + 1
        # File names hold seconds: a quick resume would otherwise overwrite what it continues.
        suffix = "" if resumed_step is None else f".from{resumed_step}"
        self._writer = make(str(directory), purge_step=purge, filename_suffix=suffix)

    def write(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of one row, as given to ``MetricsLog.append``."""
        if self._writer is None:
            return
        for name, value in row.items():
            if name not in ROW_KEYS and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{name}/{row['split']}", value, row["step"])

    def close(self) -> None:
        """Write out what is buffered and close the file."""
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> "Scalars":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
