"""A signal in any part of a run: saved, said, and gone on with to the same bits."""

import json
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from tiers import every

from resnorm_jax.cli.errors import guarded
from resnorm_jax.errors import Preempted
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.training import loop, preemption
from resnorm_jax.training.checkpoint import params_sha256
from resnorm_jax.training.preemption import Signals
from resnorm_jax.training.processes import Processes

STEPS = 12


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def after(times, function):
    """Return the function, which sends a signal to its own process when it was called so often."""
    left = [times]

    def counted(*args, **options):
        out = function(*args, **options)
        left[0] -= 1
        if left[0] == 0:
            send()
        return out

    return counted


def test_where_nothing_can_be_lost_a_signal_ends_the_run_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as stop, Signals():
        send(signal.SIGTERM)
    assert stop.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_holds_is_asked_before_it_ends():
    with Signals() as signals:
        with signals.held():
            send(signal.SIGINT)
            assert signals.received == signal.SIGINT
        with pytest.raises(Preempted):
            signals.check()


def test_a_second_signal_ends_the_process_without_a_save():
    code = (
        "import os, signal\n"
        "from resnorm_jax.training.preemption import Signals\n"
        "with Signals() as s, s.held():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "ended without a save\n")


RUN = """
import signal, sys, time
from rich.console import Console
from resnorm_jax.cli.errors import guarded
from resnorm_jax.errors import Preempted
from resnorm_jax.reporting.terminal import Lasting
from resnorm_jax.training.preemption import Signals
from resnorm_jax.training.processes import Processes

def train():
    console = Console(file=Lasting(sys.stdout))
    with Signals() as signals, signals.held():
        for step in range(SECONDS * 20):
            console.print("step", step, highlight=False)
            time.sleep(0.05)
            if signals.asked():
                break
        time.sleep(0.3)  # it saves
        console.print("saved")
        open(sys.argv[1], "w").write(f"step {step}")
        if signals.asked():
            raise Preempted(signals.asked())

sys.exit(guarded(train))
"""


@pytest.fixture(autouse=True)
def hangup_as_on_a_terminal():
    """Tests may themselves be started by ``nohup``, which has all processes ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def on_a_terminal(path, seconds, ignored=False):
    """Start a run whose terminal, of which it is the foreground, is closed once it has trained."""
    own = "import os, signal; os.open(os.ttyname(1), os.O_RDWR)\n"  # now it is the session's
    own += f"signal.signal(signal.SIGHUP, signal.{'SIG_IGN' if ignored else 'SIG_DFL'})\n"
    code = own + RUN.replace("SECONDS", str(seconds))
    terminal, its = pty.openpty()
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=its, stdout=its, stderr=its, start_new_session=True,
    )  # fmt: skip
    os.close(its)
    seen = b""
    while b"step 2" not in seen:
        seen += os.read(terminal, 1000)
    os.close(terminal)
    return run.wait(60)


def test_a_closed_terminal_ends_a_run_after_a_save(tmp_path):
    assert on_a_terminal(tmp_path / "saved", 60) == 128 + signal.SIGHUP
    assert (tmp_path / "saved").exists()


def test_a_run_that_ignores_it_goes_on_without_its_terminal(tmp_path):
    """As ``nohup`` starts one; its prints fail."""
    assert on_a_terminal(tmp_path / "saved", 1, ignored=True) == 0
    assert (tmp_path / "saved").read_text() == "step 19"


def test_more_than_one_hangup_is_one(monkeypatch):
    """The kernel sends it, and the shell, and the kernel again."""
    monkeypatch.setattr(preemption, "let_go", lambda: None)
    with Signals() as signals, signals.held():
        send(signal.SIGTERM)
        for _ in range(3):
            send(signal.SIGHUP)
        assert signals.received == signal.SIGTERM


def test_a_hangup_is_a_sigterm_for_several_processes(monkeypatch):
    sent = []
    monkeypatch.setattr(preemption, "let_go", lambda: None)
    monkeypatch.setattr(preemption, "current", lambda: Processes(1, 2))
    with Signals() as signals:
        monkeypatch.setattr(preemption.os, "kill", lambda pid, number: sent.append(number))
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        signals.check()  # it is asked for after a step, of all processes
    assert sent == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_command_ends_with_a_status_of_its_own(capsys, number):
    def command():
        raise Preempted(number, "seed 0 saved at step 20")

    assert guarded(command) == 128 + number
    error = capsys.readouterr().err
    assert error == f"{number.name}: seed 0 saved at step 20; the same command goes on from there\n"


def train(made, workdir):
    run, state = tiny.run(made, tiny.dataset(), workdir, 1, STEPS)
    run.buckets = (8,)  # one length, hence half the programs
    with Signals() as run.signals:
        return loop.train_seed(run, 0, state, STEPS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A config, and what an undisturbed run of it gives: parameters' hash, step, and log."""
    workdir = tmp_path_factory.mktemp("whole")
    made = tiny.config(
        checkpoint_every=5, evaluate_every=3, log_every=2, select="best", keep_best=2,
        model={"dropout": 0.3}, optimizer={"learning_rate": 0.3},
    )  # fmt: skip
    outcome = train(made, workdir)
    return made, params_sha256(outcome.params), outcome.step, log_of(workdir)


def log_of(workdir):
    return (workdir / "metrics.jsonl").read_bytes()


PLACES = {
    "step": (tiny.DataParallel, "train", 4),
    "first step, right after compilation": (tiny.DataParallel, "train", 1),
    "evaluation": (tiny.DataParallel, "predict", 3),
    "evaluation of the last step": (tiny.DataParallel, "predict", STEPS // 3),
    "save": (ocp.StandardCheckpointer, "save", 2),
}


@pytest.mark.parametrize("place", every(PLACES))
def test_stopped_and_gone_on_a_run_has_the_same_bits(whole, place, tmp_path, monkeypatch):
    made, want, step, log = whole
    owner, name, times = PLACES[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, after(times, getattr(owner, name)))
        with pytest.raises(Preempted) as stop:
            train(made, tmp_path)
    rows = MetricsLog(tmp_path / "metrics.jsonl").rows()
    done = int(stop.value.saved.removeprefix("seed 0 saved at step "))
    assert 1 <= done <= STEPS
    assert all(row["step"] <= done for row in rows)
    resumed = train(made, tmp_path)
    assert params_sha256(resumed.params) == want
    assert resumed.step == step
    assert log_of(tmp_path) == log


@pytest.mark.table
def test_the_best_run_is_not_the_last_one(whole):
    """Or the test above could not tell them apart."""
    rows = [json.loads(line) for line in whole[3].splitlines()]
    assert whole[2] < STEPS
    assert len({r["loss"] for r in rows if r["split"] == "valid"}) == STEPS // 3
    assert np.isfinite([r["loss"] for r in rows]).all()
