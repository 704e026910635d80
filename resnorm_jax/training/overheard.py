"""What JAX's runtime says on standard error, kept until it is known whether there is a better line."""

import os
import sys
import tempfile
import threading
from types import TracebackType


class Overheard:
    """Keeps what is written to standard error, C++'s lines too; at the end it is given back."""

    def __enter__(self) -> "Overheard":
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
                os.write(2, self.text().encode())
            os.close(self._real)
