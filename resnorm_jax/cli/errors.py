"""How commands end: a person's mistake is one line and exit status 2, without a traceback."""

import os
import signal
import sys
from collections.abc import Callable

from resnorm_jax.errors import DivergedError, Preempted, UserError

# Without the package's own dependencies, as in a checkout that was never installed.
REQUIRED = (
    "absl", "chex", "flax", "grain", "jax", "jaxlib", "ml_collections", "numpy", "optax", "orbax",
    "rich", "scipy", "yaml",
)  # fmt: skip
INSTALL = 'in a checkout run pip install -e ".[all]", elsewhere pip install "resnorm_jax[all]"'


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command; return its exit status.

    0 done, 1 the training diverged, 2 a person's mistake, 128 and the signal's number after a signal:
    130 for Ctrl-C, 143 for SIGTERM, 129 for a closed terminal. (75 is the watchdog's and 76 that of
    a lost peer; both end the process by themselves.)
    """
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"diverged: {_one_line(error)}", file=sys.stderr)
        return 1
    except Preempted as stop:
        name, saved = signal.Signals(stop.number).name, stop.saved or "all that was done is saved"
        print(f"{name}: {saved}; the same command goes on from there", file=sys.stderr)
        return 128 + stop.number
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in REQUIRED:
            raise
        print(f"error: {error.name} is not installed; {INSTALL}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _one_line(error: Exception) -> str:
    """The message, though a path or a value in it may hold the ends of lines."""
    return "\\n".join(str(error).splitlines())
