"""SIGTERM and SIGINT: a run saves where it stands, says so, and ends with a status of its own.

Periodic checkpoints are the guarantee, a signal is the courtesy: a machine that is taken away may send
none.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jax.experimental.multihost_utils import reached_preemption_sync_point

from resnorm_jax.errors import Preempted
from resnorm_jax.training.processes import current

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Receives signals while a run goes on; use as a context manager.

    Where nothing can be lost, a signal ends the run at once, by `Preempted`. Inside `held` it is only
    noted: whoever holds it asks `received` between two steps, saves, and ends the run. A second signal
    ends the process without a save.

    Python hands on a signal between two of its own instructions: one that comes while XLA compiles is
    seen right after. Only the main thread can receive signals; elsewhere this does nothing.

    Where a run has several processes, JAX's own handler receives SIGTERM, and all stop after the same
    step, whichever of them was told. Ctrl-C counts as SIGTERM then.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._held = False
        self._asked = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():
            return self
        if current().several:
            self._before = {signal.SIGINT: signal.signal(signal.SIGINT, _terminate)}
        else:
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"ended without a save\n")
            os._exit(128 + number)
        self.received = number
        if not self._held:
            raise Preempted(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Note signals only, until the end of the block."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def asked(self) -> int | None:
        """Return the signal after which the run is to stop now, if any; asked once after each step."""
        if not current().several:
            return self.received
        self._asked += 1
        return signal.SIGTERM if reached_preemption_sync_point(self._asked) else None

    def check(self) -> None:
        """Raise `Preempted` if a signal was received."""
        if self.received is not None:
            raise Preempted(self.received)


def _terminate(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
