"""Where the time of a run goes: each moment of its main thread belongs to one phase."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# In the order of the table. Steps run on the device while the host does other things: only what it
# waits for them is their phase.
PHASES = {
    "data": "reading the data, and waiting for batches",
    "compile": "tracing and compiling, or loading what was compiled before",
    "step": "waiting for the device to finish steps",
    "dispatch": "handing batches and steps to the device",
    "evaluation": "scoring validation and test rows",
    "save": "copying the state to the host, and waiting until it is on disk",
    "report": "figures and files at the end",
    "other": "logging and the rest",
}


class Phases:
    """Sums seconds by phase; they add up to the time since it was made.

    A phase inside another takes its time from the one outside. What passes between two changes of
    phase while ``programs()`` grows is of the phase ``compile``, whichever was named.

    Args:
      clock: seconds from any fixed moment.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.programs: Callable[[], int] = lambda: 0
        self._clock, self._since, self._known = clock, clock(), 0
        self._inside = ["other"]
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the block's time to a phase of `PHASES`."""
        self.lap()
        self._inside.append(name)
        try:
            yield
        finally:
            self.lap()
            self._inside.pop()

    def lap(self) -> None:
        """Count the time until now: to ``compile`` if a program was compiled, else as it was named."""
        now, programs = self._clock(), self.programs()
        name = "compile" if programs > self._known else self._inside[-1]
        self._seconds[name] += now - self._since
        self._since, self._known = now, programs

    def told(self) -> dict[str, float]:
        """Return seconds by phase, in milliseconds exact, until now."""
        self.lap()
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}
