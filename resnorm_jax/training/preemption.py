"""SIGTERM, SIGINT, SIGHUP: a run saves where it stands, says so, and ends with a status of its own.

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
from resnorm_jax.reporting.terminal import let_go
from resnorm_jax.training.processes import current

HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed; Windows has none


class Signals:
    """Receives signals while a run goes on; use as a context manager.

    Where nothing can be lost, a signal ends the run at once, by `Preempted`. Inside `held` it is only
    noted: whoever holds it asks `received` between two steps, saves, and ends the run. A second signal
    ends the process without a save, but for SIGHUP: a terminal that closes sends it more than once.
    Where SIGHUP is ignored (``nohup``) it stays so.

    Python hands on a signal between two of its own instructions: one that comes while XLA compiles is
    seen right after. Only the main thread can receive signals; elsewhere this does nothing.

    Where a run has several processes, JAX's own handler receives SIGTERM, and all stop after the same
    step, whichever of them was told. Ctrl-C and SIGHUP count as SIGTERM then.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._held = False
        self._asked = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is not threading.main_thread():
            return self
        several = current().several
        numbers = [signal.SIGINT] if several else [signal.SIGTERM, signal.SIGINT]
        if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
            numbers.append(HANGUP)
        handler = self._pass_on if several else self._receive
        self._before = {number: signal.signal(number, handler) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._is_repeated(number):
            return
        if self.received is not None:
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"ended without a save\n")
            os._exit(128 + number)
        self.received = number
        if not self._held:
            raise Preempted(number)

    def _is_repeated(self, number: int) -> bool:
        """Whether this is not the first signal, and asks for nothing more."""
        if number != HANGUP:
            return False
        let_go()
        return self.received is not None

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Tell JAX's own handler, in a run of several processes."""
        if not self._is_repeated(number):
            self.received = number
            os.kill(os.getpid(), signal.SIGTERM)

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
        """Raise `Preempted` if a signal was received; several processes ask after a step only."""
        if self.received is not None and not current().several:
            raise Preempted(self.received)
