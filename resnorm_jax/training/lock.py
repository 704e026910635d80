"""One process a run directory: a lock that a dead process does not keep.

The lock is POSIX record locking (``fcntl.lockf``) of ``run.lock``. The kernel drops it when its
process ends, however it ends. On NFS it holds between hosts if the server's lock daemon runs
(version 3) and always does in version 4; file systems without locks (some mounts of object stores)
refuse it, which is told.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnorm_jax.errors import UserError

NAME = "run.lock"
SIGNED_WITHIN = 100  # hundredths of a second
_held: set[tuple[int, int]] = set()  # device and inode: record locks do not bar their own process


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock; its file names host and process.

    Args:
      directory: there already.

    Raises:
      UserError: another run holds it (who is named), or the file system has no locks.
    """
    descriptor = _opened(directory)
    key = _file(descriptor)
    try:
        _sign(descriptor)
        yield
    finally:
        _held.discard(key)
        os.ftruncate(descriptor, 0)  # nobody is to be taken for the next holder
        os.close(descriptor)


def _opened(directory: Path) -> int:
    """Return a locked descriptor of the file that has the name, and not of one just removed."""
    while True:
        descriptor = os.open(directory / NAME, os.O_RDWR | os.O_CREAT, 0o644)
        key = _file(descriptor)
        if key in _held:  # closing this descriptor would drop the lock of the other: it stays open
            raise UserError(_busy(directory, descriptor))
        try:
            _lock(directory, descriptor)
            if _named(directory / NAME) == key:
                _held.add(key)
                return descriptor
        except UserError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _file(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _named(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _lock(directory: Path, descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # not a POSIX system: nothing to lock with
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise UserError(_busy(directory, descriptor)) from None
    except OSError as error:
        raise UserError(
            f"--workdir: {directory} cannot be locked ({error.strerror}); name a directory on a file "
            "system with POSIX locks"
        ) from None


def _sign(descriptor: int) -> None:
    holder = json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode()
    with suppress(OSError):  # on a full disk it is locked all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, holder, 0)


def _busy(directory: Path, descriptor: int) -> str:
    who = "another process"
    for _ in range(SIGNED_WITHIN):  # it may have locked the file and not signed it yet
        try:
            holder = json.loads(os.pread(descriptor, 4096, 0))
            who = f"process {holder['pid']} on {holder['host']}"
            break
        except (ValueError, KeyError, TypeError):
            time.sleep(0.01)
    return f"--workdir: {directory} is in use by {who}; wait until it ends, or name a new directory"
