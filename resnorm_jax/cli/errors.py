"""How commands end: a person's mistake is one line and exit status 2, without a traceback."""

import os
import sys
from collections.abc import Callable

from resnorm_jax.errors import DivergedError, UserError


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command; return its exit status.

    0 done, 1 the training diverged, 2 a person's mistake, 130 interrupted.
    """
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
