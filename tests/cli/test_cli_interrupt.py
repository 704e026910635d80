"""Ctrl-C while a command reads its modules: one line, status 130, no traceback."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from resnorm_jax.cli.start import ending_at_once

ROOT = Path(__file__).parents[2]
# A module that Ctrl-C reaches while it is read, and that makes another error of it.
INTERRUPTED = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
except KeyboardInterrupt:
    raise ImportError("while initializing the extension")
"""
COMMANDS = {
    "train": ["train.py", "--config=configs/digits.py", "--workdir={d}/run"],
    "show": ["-m", "resnorm_jax.cli.main", "show", "pre_ln"],
    "list": ["-m", "resnorm_jax.cli.main", "list"],
    "evaluate": ["-m", "resnorm_jax.cli.main", "evaluate", "{d}/run"],
    "predict": ["-m", "resnorm_jax.cli.main", "predict", "{d}/run", "x.ts"],
    "bench": ["-m", "resnorm_jax.cli.main", "bench", "--output={d}/b.json"],
    **{
        name: ["-m", "resnorm_jax.cli.main", "lab", name, *more]
        for name, more in {
            "article": ["--output={d}/o"],
            "signal": ["--output={d}/o"],
            "theory": ["--output={d}/o"],
            "compare": ["--output={d}/o"],
            "certify": ["--config=configs/digits.py"],
            "prune": ["{d}/run"],
        }.items()
    },
}


QUICK = ("train", "certify")


def _hear_ctrl_c():
    """A shell has its background commands ignore it, and so would these tests' processes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.table) for n in COMMANDS]
)
def test_while_jax_is_imported(name, tmp_path):
    (tmp_path / "jax.py").write_text(INTERRUPTED)
    words = [word.replace("{d}", str(tmp_path)) for word in COMMANDS[name]]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        preexec_fn=_hear_ctrl_c,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert [p.name for p in tmp_path.iterdir() if p.name != "__pycache__"] == ["jax.py"]


def test_the_handler_of_whoever_calls_is_left_alone():
    def mine(*_):
        pass

    before = signal.signal(signal.SIGINT, mine)
    try:
        with ending_at_once():
            assert signal.getsignal(signal.SIGINT) is mine
        assert signal.getsignal(signal.SIGINT) is mine
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with ending_at_once():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_command_may_run_in_any_thread():
    found = []

    def run():
        with ending_at_once():
            found.append("ran")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == ["ran"]
