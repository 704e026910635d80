"""A thread that ends a process which does nothing any more, and says what it was doing."""

import faulthandler
import sys
import threading
import time
from collections.abc import Callable

from resnorm_jax.training.ending import end as end_process

STATUS = 75  # sysexits.h: a temporary failure; the same command goes on


def _end() -> None:
    faulthandler.dump_traceback(file=2, all_threads=True)  # standard error
    end_process(STATUS)


class Watchdog:
    """Ends the process when nothing was finished for too long; use as a context manager.

    Args:
      seconds: how long one thing may take, compilation with it; 0 for ever.
      clock: seconds from any fixed moment.
      end: prints every thread's stack and ends the process.
    """

    def __init__(
        self,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        end: Callable[[], None] = _end,
    ) -> None:
        self.seconds, self._clock, self._finish = seconds, clock, end
        self.activity, self._since = "starting", clock()
        self._stop = threading.Event()

    def doing(self, activity: str) -> None:
        """Note that what went before is finished, and what is done now."""
        self.activity, self._since = activity, self._clock()

    def check(self) -> None:
        """End the process if the present activity takes too long."""
        waited = self._clock() - self._since
        if self.seconds and waited >= self.seconds:
            line = (
                f"watchdog: nothing finished for {waited:.0f} s (train.watchdog={self.seconds:g}) "
                f"while {self.activity}; the same command goes on from the last checkpoint"
            )
            print(line, file=sys.__stderr__, flush=True)
            self._finish()

    def __enter__(self) -> "Watchdog":
        self._since = self._clock()
        if self.seconds:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(min(self.seconds / 4, 10.0)):
            self.check()
