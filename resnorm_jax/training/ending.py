"""A process that ends at once, whatever its threads do, leaves nothing behind that nobody needs."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

_WORK: list[Callable[[], Any]] = []


@contextmanager
def at_end(work: Callable[[], Any]) -> Iterator[None]:
    """Have something done at the end of the block, or by `end` inside it."""
    _WORK.append(work)
    try:
        yield
    finally:
        _WORK.remove(work)
        work()


@contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """Yield a new directory, which goes at the end of the block, or by `end`."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    with at_end(partial(shutil.rmtree, path, ignore_errors=True)):
        yield path


def end(status: int) -> None:
    """End the process now: what hangs would hang an orderly end too."""
    for work in reversed(_WORK):
        with suppress(OSError):
            work()
    os._exit(status)
