"""How far training is: a bar on a terminal, a line now and then in a log file."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar


class Speed:
    """Examples and steps per second, without the compilation that the first update waits for."""

    def __init__(self, now: float, step: int):
        self._origin = (now, step, 0)  # time, step and examples from which rates are counted
        self._latest = self._origin
        self._updates = 0

    def add(self, now: float, step: int, examples: int) -> None:
        """Note that ``examples`` more were seen by ``step``."""
        self._latest = (now, step, self._latest[2] + examples)
        self._updates += 1
        if self._updates == 1:
            self._first = self._latest
        elif self._updates == 2:
            self._origin = self._first  # there is something to measure past the compilation now

    @property
    def elapsed(self) -> float:
        """Seconds that the rates are taken over."""
        return self._latest[0] - self._origin[0]

    @property
    def examples_per_second(self) -> float:
        """Throughput; 0.0 before any time has passed."""
        return (self._latest[2] - self._origin[2]) / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def compiled(self) -> bool:
        """Whether the rates leave out the first update, which waits for the compilation."""
        return self._updates > 1

    def seconds_for(self, steps: int) -> float | None:
        """Time that ``steps`` more take at this rate; None when it is not known."""
        done = self._latest[1] - self._origin[1]
        return self.elapsed / done * steps if done > 0 and self.elapsed > 0 else None


def format_number(value: float) -> str:
    """Format a metric in four decimals, or in powers of ten where these would show nothing."""
    value = float(value)
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.2e}"


def format_duration(seconds: float | None) -> str:
    """Format as ``m:ss`` or ``h:mm:ss``; ``-:--`` when not known."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Shows a training loop's progress; use as a context manager.

    On a terminal it is a live bar. Elsewhere it prints a plain line at the first update, then at
    most one every ``interval`` seconds, and one when the last step is done.

    Args:
      description: what is running, e.g. ``"seed 0"``.
      total: steps in all.
      start: steps already done, where training resumes from a checkpoint.
      console: where to show; standard output when None.
      interval: seconds between plain lines.
      clock: seconds from any fixed moment.
      rate: whether the updates are steps that see examples: their rate is shown, and nothing is
        foretold from the first one, which waits for the compilation.
    """

    def __init__(
        self,
        description: str,
        total: int,
        *,
        start: int = 0,
        console: Console | None = None,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        rate: bool = True,
    ):
        self._rate = rate
        self.description, self.total = description, total
        self.console = console or Console()
        self._start, self._interval, self._clock = start, interval, clock
        self._speed = Speed(clock(), start)
        self._printed: float | None = None
        self._bar: Bar | None = None

    def __enter__(self) -> "Progress":
        self._speed = Speed(self._clock(), self._start)
        if self.console.is_terminal:
            self._bar = _bar(self.console)
            self._task = self._bar.add_task(
                self.description, total=self.total, completed=self._start, text="compiling"
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, examples: int = 0, **numbers: float) -> None:
        """Show that ``step`` steps are done.

        Args:
          step: steps done, counted from the start of training.
          examples: examples seen since the update before.
          **numbers: what to show, e.g. ``loss=0.5``; a value on a device is waited for.
        """
        shown = {name: format_number(value) for name, value in numbers.items()}
        # After the conversion: it waits for the device, whose work then counts in the time.
        now = self._clock()
        self._speed.add(now, step, examples)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, text=self._text(step, shown))
        elif self._due(now, step):
            self._printed = now
            line = f"{self.description}  {self._percent(step)}  {step}/{self.total}"
            self.print(f"{line}  {self._text(step, shown)}")

    @property
    def examples_per_second(self) -> float | None:
        """Throughput since the first update, which holds compilation; None before the second."""
        return self._speed.examples_per_second or None

    def print(self, line: str) -> None:
        """Print a line above the bar, as it is: not wrapped, colored or read as markup."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _due(self, now: float, step: int) -> bool:
        waited = self._printed is None or now - self._printed >= self._interval
        return waited or step >= self.total

    def _percent(self, step: int) -> str:
        return f"{100 * step // max(self.total, 1):3d}%"

    def _text(self, step: int, shown: Mapping[str, str]) -> str:
        numbers = [f"{name} {value}" for name, value in shown.items()]
        unit, gap = ("ex/s", " ") if self._bar is not None else ("examples/s", "  ")
        seconds, rate = self._speed.seconds_for(max(self.total - step, 0)), []
        if self._rate and not self._speed.compiled and step < self.total:
            seconds = None  # minutes of compilation times all steps would be hours
        elif self._rate:
            rate = [f"{self._speed.examples_per_second:,.0f} {unit}"]
        return gap.join([*numbers, *rate, f"{format_duration(seconds)} left"])


def _bar(console: Console) -> Bar:
    """The live bar; rich narrows it to what the numbers, in the text column, leave free."""
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=40),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
    )
