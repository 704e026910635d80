"""What a process' exit status says to whoever started it.

A run's own statuses are those of `resnorm_jax/training/README.md`.
"""

import signal

DONE, DIVERGED, MISTAKE, WATCHDOG, PEER_LOST = 0, 1, 2, 75, 76
# A restart would end alike: the same step diverges, the same line is wrong.
FINAL = {DIVERGED: "the training diverged, or there is an error in the code", MISTAKE: "a mistake"}
AGAIN = {
    WATCHDOG: "the watchdog: no step was finished for too long",
    PEER_LOST: "a peer was lost",
    128 + signal.SIGABRT: "JAX's runtime ended it",
    128 + signal.SIGKILL: "it was killed",
    128 + signal.SIGTERM: "SIGTERM: its state is saved",
}


def shell_status(code: int) -> int:
    """Return a status as shells have it: 128 and the signal's number for a process that one ended."""
    return 128 - code if code < 0 else code


def helps(status: int) -> bool:
    """Whether to start again after a status: for all that is neither done nor final."""
    return status != DONE and status not in FINAL


def status_text(status: int) -> str:
    """Return e.g. ``76 (a peer was lost)``."""
    known = {DONE: "done", **FINAL, **AGAIN}
    if status in known:
        return f"{status} ({known[status]})"
    if status > 128:
        try:
            return f"{status} ({signal.Signals(status - 128).name})"
        except ValueError:
            pass
    return str(status)
