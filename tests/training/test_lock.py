"""One process a run directory; a dead process holds nothing."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from resnorm_jax.errors import UserError
from resnorm_jax.training.lock import locked

HOLD = """
import sys, pathlib
from resnorm_jax.training.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_named_and_a_dead_one_holds_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        who = f"in use by process {other.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=who), locked(tmp_path):
            pass
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    with locked(tmp_path):
        pass


def test_a_second_run_of_this_process_is_refused_and_frees_nothing(tmp_path):
    with locked(tmp_path):
        for _ in range(2):
            with pytest.raises(UserError, match=f"process {os.getpid()} "), locked(tmp_path):
                pass
        child = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert "in use by process" in child.stderr
    with locked(tmp_path):
        pass
