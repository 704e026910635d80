"""A terminal that is closed while a run prints: the run goes on, and prints no more."""

import errno
import os
import stat
from collections.abc import Iterable
from typing import Any, TextIO


class Lasting:
    """A text stream that, once its terminal is gone, leads nowhere in place of failing.

    A terminal that closes fails at once, while its signal, which has a run save, comes a little later.

    Args:
      stream: with a file descriptor, as ``sys.stdout``; it has all other attributes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose, a text; return its length."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write, or lose, what is left."""
        self._try(self._stream.flush)

    def _try(self, work: Any) -> None:
        try:
            work()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            let_go([self._stream.fileno()])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def let_go(descriptors: Iterable[int] = (1, 2)) -> None:
    """Lead what is no file, a terminal or a pipe to what went with it, nowhere; a log file stays."""
    for descriptor in descriptors:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)
