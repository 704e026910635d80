"""The watchdog: by an injected clock, and once for real in a process of its own."""

import subprocess
import sys

from resnorm_jax.training.watchdog import STATUS, Watchdog


def test_it_ends_what_takes_too_long_and_says_what_that_was(capfd):
    now, ended = [0.0], []
    dog = Watchdog(60, clock=lambda: now[0], end=lambda: ended.append(now[0]))
    dog.doing("seed 0 was at step 1")
    now[0] = 59
    dog.check()
    dog.doing("seed 0 was at step 2")
    now[0] = 118
    dog.check()
    assert not ended
    now[0] = 119
    dog.check()
    assert ended == [119]
    told = capfd.readouterr().err
    assert told.startswith(
        "watchdog: nothing finished for 60 s (train.watchdog=60) while seed 0 was"
    )
    assert "at step 2; the same command goes on" in told


def test_zero_is_off():
    now, ended = [0.0], []
    with Watchdog(0, clock=lambda: now[0], end=lambda: ended.append(1)) as dog:
        now[0] = 1e9
        dog.check()
    assert not ended


HANGING = """
import threading
from resnorm_jax.training.watchdog import Watchdog
def hangs_here():
    threading.Event().wait()
with Watchdog(0.1) as dog:
    dog.doing("a test hung")
    hangs_here()
"""


def test_a_process_that_hangs_ends_with_its_stacks():
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True)
    assert done.returncode == STATUS == 75
    assert "while a test hung;" in done.stderr
    assert "in hangs_here" in done.stderr
