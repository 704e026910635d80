"""Large pages for the memory of a command that computes."""

import os
import sys
from contextlib import suppress
from pathlib import Path

VARIABLE, SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
SINCE = (2, 35)  # of glibc
SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def start_with_large_pages() -> None:
    """Start this process again, once, so that glibc asks the system for large pages.

    On a CPU, XLA asks for all temporaries of a step at once, and gives them back after it. The system
    hands them out anew page by page: at 4 KiB a sixth of a step's time goes there (30,000 pages in a
    step with 124 MB, 500 with large pages). glibc reads the setting when a process begins.

    Nothing happens where somebody has set glibc's tunables, where it or Linux is without large pages,
    and where Linux takes them unasked.
    """
    if VARIABLE in os.environ or not _served():
        return
    with suppress(OSError):  # a command that cannot be started again goes on as it is
        environment = {**os.environ, VARIABLE: SETTING}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _served() -> bool:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        asked = "[madvise]" in SYSTEM.read_text(encoding="ascii")
        return name == "glibc" and asked and tuple(map(int, version.split("."))) >= SINCE
    except (AttributeError, ValueError, OSError):  # no such name, or no such file: another system
        return False
