"""A trace of some steps for people: where their time goes, on the host and on the device."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

STEPS = 10  # that are traced
STEADY = 5  # steps before them in which nothing was compiled


class Profile:
    """Writes a trace of `STEPS` steps in a row, once, after `STEADY` that compiled nothing.

    Use as a context manager: where training ends before, what was traced until then is written.

    Tracing waits for the device before and after; it changes no numbers. What goes wrong with it is
    said, and the run goes on.

    Args:
      folder: that is made; nothing is traced without one, or if it is there.
      say: told how to open the trace, or why there is none.
    """

    def __init__(
        self, folder: Path | None = None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.folder, self.say = folder, say
        self.wanted, self.tracing = folder is not None, False
        self._programs, self._steps = -1, 0  # steps since the last program, or since the start
        if folder is not None and folder.exists():
            self._none(f"{folder} is there already; move it away for a new one")

    @contextmanager
    def step(self, number: int, state: Any, programs: int) -> Iterator[None]:
        """Trace what is done inside, if it is to be traced.

        Args:
          number: of the step, shown in the trace.
          state: on the devices, which the steps before make.
          programs: compiled so far.
        """
        if not self.wanted:
            yield
            return
        steady = programs == self._programs
        self._steps, self._programs = self._steps + 1 if steady else 0, programs
        if not self.tracing and self._steps >= STEADY:
            self._start(state)
        elif self.tracing and self._steps >= STEPS:
            self.end(state)
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def _start(self, state: Any) -> None:
        assert self.folder is not None
        jax.block_until_ready(state)
        try:
            shutil.rmtree(self._partial(self.folder), ignore_errors=True)  # of a killed process
            jax.profiler.start_trace(str(self._partial(self.folder)))
        except (RuntimeError, OSError) as error:  # e.g. another trace is being made
            self._none(str(error))
        else:
            self.tracing, self._steps = True, 0

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *error: object) -> None:
        self.end(())
        if self.wanted:
            self._none(f"there were no {STEADY} steps in a row that compiled nothing")

    def end(self, state: Any) -> None:
        """Write the trace, if one is being made."""
        if not self.tracing:
            return
        assert self.folder is not None
        jax.block_until_ready(state)
        self.wanted = self.tracing = False
        try:
            jax.profiler.stop_trace()
            self._partial(self.folder).rename(self.folder)
        except (RuntimeError, OSError) as error:  # e.g. a full disk
            return self._none(str(error))
        file = next(self.folder.rglob("*.trace.json.gz"), self.folder)
        self.say(
            f"profile: open {file} at https://ui.perfetto.dev, or run: xprof --logdir={self.folder}"
        )

    @staticmethod
    def _partial(folder: Path) -> Path:
        return folder.with_name(f"{folder.name}.partial")

    def _none(self, why: str) -> None:
        self.wanted = self.tracing = False
        self.say(f"profile: none: {' '.join(why.split())[:300]}")
