"""A process that ends at once, whatever its threads are doing, leaves nothing temporary behind."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_temporary: list[Path] = []


@contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """Yield a new directory, which is removed at the end of the block, or by `end`."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        path = Path(name)
        _temporary.append(path)
        try:
            yield path
        finally:
            _temporary.remove(path)


def end(status: int) -> None:
    """End the process now: what hangs would hang an orderly end too."""
    for path in list(_temporary):
        shutil.rmtree(path, ignore_errors=True)
    os._exit(status)
