"""What JAX's runtime says on standard error, kept until it is known whether there is a better line."""

import os
import re
import sys
import tempfile
import threading
from types import TracebackType

# What the coordinator notes of each process that comes, at this level of its module's verbose log.
CAME = re.compile(r"Task (\d+) invoked BarrierAsync\(\[Init\]")
MODULE, LEVEL = "coordination_service", 3
NOTE = re.compile(rb"I\d{4} ")  # how a line begins that is no warning


class Overheard:
    """Keeps what is written to standard error, C++'s lines too; at the end it is given back.

    The coordinator's notes are asked for meanwhile, and are not given back.
    """

    def __enter__(self) -> "Overheard":
        _verbose(0, LEVEL)
        self._lock, self._over = threading.Lock(), False
        self._file = tempfile.TemporaryFile()
        sys.stderr.flush()
        self._real = os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()
        _verbose(int(os.environ.get("TF_CPP_MIN_LOG_LEVEL") or 1), 0)

    def came(self) -> set[int]:
        """Return the processes that the coordinator, which is in process 0, has seen."""
        return {int(number) for number in CAME.findall(self.text())}

    def text(self) -> str:
        """Return what was written so far."""
        size = os.fstat(self._file.fileno()).st_size
        return os.pread(self._file.fileno(), size, 0).decode(errors="replace")

    def give_back(self, silent: bool = False) -> None:
        """Write it where it belongs (not if ``silent``), as all that comes later."""
        with self._lock:
            if self._over:
                return
            self._over = True
            os.dup2(self._real, 2)
            if not silent:
                lines = self.text().encode().splitlines(keepends=True)
                os.write(2, b"".join(line for line in lines if not NOTE.match(line)))
            os.close(self._real)


def _verbose(least: int, module: int) -> None:
    """Set the least severity that C++ logs, and how much of the coordinator's verbose log."""
    try:
        from jaxlib import utils

        utils.absl_set_min_log_level(least)
        utils.absl_set_vlog_level(MODULE, module)
    except (ImportError, AttributeError):  # no promise of JAX: nobody is named then
        pass
