"""Ctrl-C while a command reads its modules."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def ending_at_once(said: str = "interrupted") -> Iterator[None]:
    """Have Ctrl-C end the process with one line and status 130, for as long as nothing is written.

    A KeyboardInterrupt inside an import can become another error, or be lost: extension modules turn
    it into an ImportError, callbacks of the interpreter ignore it.
    """

    def end(*_: object) -> None:
        os.write(2, f"{said}\n".encode())  # the file itself: print is not to be called here
        os._exit(INTERRUPTED)

    # Whoever calls the command as a function has handlers, or threads, of their own.
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
