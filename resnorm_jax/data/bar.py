"""A progress bar that appears only once the work has lasted a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

BAR_AFTER_SECONDS = 2.0


class Bar:
    """A bar of rich, of ``total`` things to do; None where nobody knows how many there are."""

    def __init__(self, doing: str, total: int | None) -> None:
        from rich.progress import Progress

        self.bar = Progress(transient=True)
        self.doing, self.total, self.begin, self.shown = doing, total, monotonic(), False

    def update(self, done: int) -> None:
        """Show how much is done."""
        if not self.shown and monotonic() - self.begin > BAR_AFTER_SECONDS:
            self.shown = True
            self.bar.start()
            self.task = self.bar.add_task(self.doing, total=self.total)
        if self.shown:
            self.bar.update(self.task, completed=done)
            if self.total is None:
                self.bar.update(self.task, description=f"{self.doing}: {done:,} rows")

    def close(self) -> None:
        """Take the bar away."""
        if self.shown:
            self.bar.stop()


@contextmanager
def progress(doing: str, total: int | None = None) -> Iterator[Bar]:
    """Give a bar, and take it away at the end."""
    bar = Bar(doing, total)
    try:
        yield bar
    finally:
        bar.close()
