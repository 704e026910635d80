"""Several processes: who reads which rows, who is alive, what they agree on. None is started."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from training import tiny

from resnorm_jax.cli.train import _of_processes, main
from resnorm_jax.data import TrainBatches, eval_batches
from resnorm_jax.data.pipeline import cut, real_rows
from resnorm_jax.errors import UserError
from resnorm_jax.training import joining, overheard, peers, preemption, shared_store
from resnorm_jax.training.checkpoint import CheckpointStore, DamagedCheckpointError
from resnorm_jax.training.devices import share_of
from resnorm_jax.training.first_runs import Together
from resnorm_jax.training.processes import Processes, difference


@pytest.mark.parametrize("owners", [[0, 1], [0, 0, 1, 1], [0, 1, 2, 3], [0, 0, 0, 1]], ids=str)
def test_shares_are_the_global_batch_row_by_row(owners):
    data = tiny.dataset()
    shares = [share_of(16, owners, process) for process in sorted(set(owners))]
    batches = TrainBatches(data.train, 16, (5, 8), 0)
    held = eval_batches(data.test, 16, (5, 8))
    parts = [eval_batches(data.test, 16, (5, 8), share) for share in shares]
    for step in range(batches.steps_per_epoch):
        whole = batches.batch_at(step)
        assert_joined(whole, [batches.batch_at(step, share) for share in shares])
        assert_joined(whole, [cut(whole, share) for share in shares])
    for index, whole in enumerate(held):
        rows = whole.pop("rows")
        mine = [part[index] for part in parts]
        for one in mine:
            np.testing.assert_array_equal(one.pop("rows"), rows)  # of the global batch
        assert_joined(whole, mine)


def assert_joined(whole, parts):
    assert all(real_rows(part) == whole["weight"].sum() for part in parts)
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_a_process_alone_reads_all_rows():
    assert share_of(12, [0, 0, 0], 0) is None


def test_who_gives_no_sign_is_named():
    signs = peers.Signs(0, 3, timeout=10, now=0.0)
    for now in range(1, 15):
        signs.hear({0: str(now), 1: str(now), 2: "4" if now > 4 else str(now)}, now)
        found = signs.silent(now)
        assert found == ((2, 10) if now == 14 else None), now


def test_a_coordinator_that_does_not_answer_is_process_0():
    signs = peers.Signs(1, 3, timeout=10, now=0.0)
    signs.hear({0: "1", 1: "1", 2: "1"}, 1.0)
    assert [signs.silent(float(now)) for now in (3, 6, 9)] == [None] * 3
    assert signs.silent(11.0) == (0, 10.0)


def test_a_process_that_was_frozen_accuses_nobody():
    signs = peers.Signs(1, 2, timeout=10, now=0.0)
    assert signs.silent(100.0) is None  # it did not look for 100 s: its own fault
    assert signs.silent(104.0) is None
    signs.hear({0: "a", 1: "b"}, 108.0)
    assert signs.silent(108.0) is None


class Store:
    """The key-value store of the coordination service, in this process."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        self.values[key] = value

    def key_value_delete(self, key):
        del self.values[key]

    def key_value_dir_get(self, key):
        return [(k, v) for k, v in self.values.items() if k.startswith(key)]

    def blocking_key_value_get(self, key, timeout):
        return self.values[key]

    def wait_at_barrier(self, name, timeout):
        pass


@pytest.mark.parametrize(("status", "ends"), [(2, 2), (76, 76)])
def test_who_sees_another_end_ends_with_its_status_and_says_why(status, ends, capfd):
    ended, store = [], Store()
    watch = peers.Watch(store, 1, 2, timeout=10, end=ended.append)
    watch._told.set()
    store.values["resnorm/end/0"] = json.dumps({"status": status, "line": "config.train: wrong"})
    store.values["resnorm/name/0"] = "pid 7 on node"
    watch._speak()
    watch._judge()
    assert ended == [ends]
    assert "process 0 (pid 7 on node) ended: config.train: wrong" in capfd.readouterr().err


def test_who_was_told_to_save_and_end_is_left_to_it():
    ended, store = [], Store()
    watch = peers.Watch(store, 1, 2, timeout=10, end=ended.append)
    store.values["resnorm/end/0"] = json.dumps({"status": 143, "line": "seed 0 saved"})
    watch._speak()
    watch._judge()
    assert ended == []


def test_a_peer_that_is_gone_ends_a_process_with_a_status_of_its_own(capfd):
    ended = []
    watch = peers.Watch(Store(), 0, 2, timeout=10, end=ended.append)
    watch.signs.heard = {0: 0.0, 1: -1e9}
    watch.signs.looked = watch.signs.answered = peers.time.monotonic()
    watch._told.set()
    watch._stop.set()
    watch._judge()
    assert ended == [76]
    assert "process 1 gave no sign of life" in capfd.readouterr().err


def test_process_0_tells_what_it_found():
    store = Store()
    zero, one = Processes(0, 2, store), Processes(1, 2, store)
    assert zero.shared(lambda: {"step": 3}) == {"step": 3}
    assert one.shared(lambda: pytest.fail("it asks process 0")) == {"step": 3}
    assert Processes().shared(lambda: (1, 2)) == (1, 2)  # alone: the value itself


def test_processes_that_differ_are_told_in_what():
    store = Store()
    zero, one = Processes(0, 2, store), Processes(1, 2, store)
    zero.agree("a config", {"config": {"train": {"steps": 3}}})
    with pytest.raises(
        UserError, match=r"process 1 has a config other.*train\.steps is 4 here and 3"
    ):
        one.agree("a config", {"config": {"train": {"steps": 4}}})
    assert difference({"a": 1}, {"a": 1}) is None
    assert difference({"a": 1}, {}) == ("a", "1", "'not set'")


class Meeting(Store):
    """A store whose barrier is one."""

    def __init__(self, count):
        super().__init__()
        self.barrier, self.names = threading.Barrier(count, timeout=60), []

    def wait_at_barrier(self, name, timeout):
        self.names.append(name)
        self.barrier.wait()


class Slow:
    """What `jax.jit` gives, for a process that compiles as soon as it is let."""

    def __init__(self, number, happened, let):
        self.number, self.happened, self.let = number, happened, let

    def lower(self, *arguments):
        return self

    def compile(self):
        assert self.let.wait(60)
        self.happened.append(f"{self.number} compiled")

    def __call__(self, *arguments):
        self.happened.append(f"{self.number} ran")


def test_no_process_runs_a_program_for_the_first_time_before_all_have_compiled_it():
    store, happened, let = Meeting(2), [], [threading.Event(), threading.Event()]
    programs = [
        Together(Slow(number, happened, let[number]), "step", Processes(number, 2, store))
        for number in range(2)
    ]
    short, long = np.zeros(3), np.zeros(4)

    def twice(program):
        for rows in (short, short, long):
            program({"x": rows})

    with ThreadPoolExecutor(2) as pool:
        each = [pool.submit(twice, program) for program in programs]
        let[0].set()
        while len(store.names) < 1:
            time.sleep(0.01)
        assert happened == ["0 compiled"]  # it waits
        let[1].set()
        for one in each:
            one.result()
    assert sorted(happened[:2]) == ["0 compiled", "1 compiled"]
    for number in range(2):  # a program of other shapes is another one
        own = [told.split()[1] for told in happened if told.startswith(str(number))]
        assert own == ["compiled", "ran", "ran", "compiled", "ran"]
    assert len(store.names) == 4
    assert set(store.names) == {"resnorm/run/step/1", "resnorm/run/step/2"}


def test_what_is_compiled_ahead_is_not_compiled_again():
    compiled = []

    def listen(event, seconds, **more):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(more)

    options = {"xla_cpu_enable_fast_math": False}
    program = jax.jit(lambda x: x + 1, donate_argnums=(0,), compiler_options=options)
    run = Together(program, "sum", Processes(0, 2, Store()))
    x = jax.device_put(np.zeros(7, np.float32))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        x = run(run(x))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    np.testing.assert_array_equal(x, np.full(7, 2.0))
    assert len(compiled) == 1


def test_a_shared_store_keeps_the_books_of_process_0(tmp_path):
    """Damage that process 0 finds is raised in every process; nothing else is looked into."""
    inner = CheckpointStore(tmp_path / "last")
    inner.save(3, {"w": np.ones(2, np.float32)}, {"note": 1})
    store = Store()
    zero = shared_store.SharedStore(Processes(0, 2, store), inner)
    one = shared_store.SharedStore(Processes(1, 2, store), CheckpointStore(tmp_path / "elsewhere"))
    assert one.directory == zero.directory
    assert zero.steps() == one.steps() == [3]
    assert zero.note(3) == one.note(3) == {"note": 1}
    (tmp_path / "last" / "step_000000003" / "manifest.json").unlink()
    for each in (zero, one):
        with pytest.raises(DamagedCheckpointError, match="it has no manifest"):
            each.check(3)


@pytest.mark.parametrize(("given", "said"), [
    ({"coordinator": "node0:9911"}, "--processes: missing"),
    ({"processes": "2"}, "--coordinator: missing"),
    ({"coordinator": "node0:9911", "processes": "2", "process-id": "2"}, "--process-id: 2 of 2"),
    ({"coordinator": "node0", "processes": "2", "process-id": "0"}, "--coordinator: node0; give HOST"),
    ({"coordinator": "node0:99999", "processes": "2", "process-id": "0"}, "--coordinator: node0:99999"),
    ({"processes": "two"}, "--processes: 'two'; give a whole number"),
    ({"peer-timeout": "0"}, "--peer-timeout: 0"),
    ({"start-timeout": "nan"}, "--start-timeout: nan"),
])  # fmt: skip
def test_mistakes_in_the_options_of_processes_are_one_line(given, said):
    with pytest.raises(UserError) as error:
        joining.Launch(**_of_processes(given))
    assert str(error.value).startswith(said)


def test_a_mistake_starts_nothing(tmp_path, capfd):
    argv = ["train.py", f"--workdir={tmp_path / 'run'}", "--processes=2"]
    assert main(argv) == 2
    assert "--coordinator: missing" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_one_process_is_as_none(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_"))]:
        monkeypatch.delenv(name)
    assert not joining.Launch("node0:9911", 1, 0).several
    assert not joining.Launch().several


def test_a_task_of_slurm_alone_keeps_its_devices_and_several_are_found(monkeypatch):
    known = {"JOB_ID": "7", "STEP_NODELIST": "n[1-2]", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}
    for name, value in known.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert not joining.Launch().several
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert joining.Launch().several


def test_the_processes_agree_on_the_step_after_which_they_stop(monkeypatch):
    asked = []
    monkeypatch.setattr(preemption, "current", lambda: Processes(1, 2))
    monkeypatch.setattr(
        preemption, "reached_preemption_sync_point", lambda step: asked.append(step) or step == 3
    )
    signals = preemption.Signals()
    assert [signals.asked() for _ in range(3)] == [None, None, signal.SIGTERM]
    assert asked == [1, 2, 3]


def test_a_process_that_ends_at_once_leaves_nothing_behind(tmp_path):
    """Here a thread ends it while it holds a run directory into which nothing is written yet."""
    code = (
        "import sys, threading\n"
        "from pathlib import Path\n"
        "from resnorm_jax.training.ending import end, temporary_directory\n"
        "from resnorm_jax.training.run_directory import claimed\n"
        "with temporary_directory('resnorm_') as own, claimed(Path(sys.argv[1]) / 'new' / 'run'):\n"
        "    (own / 'log').write_text('a row')\n"
        "    threading.Thread(target=end, args=(76,)).start()\n"
        "    threading.Event().wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )  # fmt: skip
    assert done.returncode == 76
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("said", "told"), [
    ("ALREADY_EXISTS: ... there is a request from a newer incarnation.", "another process of this run"),
    ("ABORTED: task:1 unexpectedly tried to connect with a different incarnation", "another process"),
    ("INVALID_ARGUMENT: Unexpected task registered with ...", "the coordinator expects fewer"),
    ("UNAVAILABLE: connection refused", None),
])  # fmt: skip
def test_what_the_runtime_refuses_is_the_mistake_behind_it(said, told):
    error = joining._mistake(joining.Launch("node0:9911", 3, 1), said)
    assert (error is None) if told is None else str(error).startswith(f"--process-id: 1: {told}")


def test_what_the_runtime_says_is_kept_and_given_back(capfd):
    with overheard.Overheard() as heard:
        os.write(2, b"F1127 a fatal error\n")
        assert heard.text() == "F1127 a fatal error\n"
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "F1127 a fatal error\n"
    with overheard.Overheard() as heard:
        os.write(2, b"another\n")
        heard.give_back(silent=True)
        os.write(2, b"a better line\n")
    assert capfd.readouterr().err == "a better line\n"


def test_a_port_at_which_somebody_listens_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--coordinator: port {port} of this host cannot be"):
            joining._check_host(joining.Launch(f"127.0.0.1:{port}", 2, 0))
        joining._check_host(joining.Launch(f"127.0.0.1:{port}", 2, 1))
    joining._check_host(joining.Launch(f"127.0.0.1:{port}", 2, 0))
