"""The loop: no recompilation, no waiting, exact resume, honest stopping."""

import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

from resnorm_jax.data.dataset import Examples
from resnorm_jax.errors import DivergedError
from resnorm_jax.training import loop
from resnorm_jax.training.checkpoint import CheckpointStore, params_sha256
from resnorm_jax.training.devices import Several
from resnorm_jax.training.loop import evaluate_every, train_seed
from resnorm_jax.training.phases import Phases
from resnorm_jax.training.reporter import Reporter
from resnorm_jax.training.run_directory import seed_directory

STEPS = 20


def train(made, workdir, steps=STEPS, data=None, devices=1):
    run, state = tiny.run(made, data or tiny.dataset(), workdir, devices, steps)
    return train_seed(run, 0, state, steps), run


@pytest.mark.table
def test_programs_are_compiled_in_the_first_epoch_only(tmp_path):
    made = tiny.config(checkpoint_every=100)
    outcome, run = train(made, tmp_path, steps=15)
    # two padded lengths to train on and one for the ten validation rows, whatever the number of epochs
    assert run.parallel.programs == 3
    assert outcome.step == 15


@pytest.mark.table
def test_the_host_waits_only_where_numbers_are_read(tmp_path, monkeypatch):
    """Between two logged steps nothing is read off a device, and the read is one step late."""
    events = []
    real_get, real_train = jax.device_get, tiny.DataParallel.train

    def spy_get(tree):
        events.append("read")
        return real_get(tree)

    def spy_train(self, state, batch):
        events.append("step")
        return real_train(self, state, batch)

    monkeypatch.setattr(jax, "device_get", spy_get)
    monkeypatch.setattr(tiny.DataParallel, "train", spy_train)
    data = tiny.dataset().replace(valid=None)
    train(tiny.config(log_every=4, checkpoint_every=100), tmp_path, steps=12, data=data)
    steps = [i for i, event in enumerate(events) if event == "step"]
    reads = [events[:i].count("step") for i, event in enumerate(events) if event == "read"]
    assert len(steps) == 12
    assert reads == [5, 9, 12]  # after the step that follows a logged one; at the end at once


def test_nothing_is_computed_between_a_step_and_the_reading_of_its_numbers():
    """The learning rate is computed on the device too: after the next step it would be waited for."""
    calls, rows = [], []
    told = SimpleNamespace(append=rows.append, write=lambda row: None, update=lambda *a, **k: None)
    guard = SimpleNamespace(pending=list, read=lambda flags: None, told=dict)

    def schedule(step):
        calls.append(step)
        return step / 10

    run = SimpleNamespace(log=told, schedule=schedule, phases=Phases())
    reporter = Reporter(run, 0, told, told, 4, guard)
    names = ("loss", "correct", "count", "grad_norm", "steps")
    reporter.expect(7, dict.fromkeys(names, 2.0), 16)
    assert calls == [6]
    reporter.collect()
    assert calls == [6]
    assert [(row["step"], row["learning_rate"], row["loss"]) for row in rows] == [(7, 0.6, 1.0)]


@pytest.mark.table
def test_resume_is_bit_equal(tmp_path):
    """Stopped at a checkpoint inside an epoch and gone on, a run has the same bits and log."""
    made = tiny.config(
        model={"dropout": 0.3, "drop_path": 0.2},
        checkpoint_every=7,
        log_every=3,
        ema=0.9,
        optimizer={"schedule": "cosine", "warmup": 0.2},
    )
    whole, _ = train(made, tmp_path / "whole", devices=2)

    class StopError(Exception):
        pass

    real = loop.iterate

    def stopping(*given):
        for index, batch in real(*given):
            if index == 11:
                raise StopError
            yield index, batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "iterate", stopping)
        with pytest.raises(StopError):
            train(made, tmp_path / "parts", devices=2)
    last = CheckpointStore(seed_directory(tmp_path / "parts", 0, "last"))
    assert last.steps() == [7]
    resumed, _ = train(made, tmp_path / "parts", devices=2)
    assert params_sha256(resumed.params) == params_sha256(whole.params)
    log = "metrics.jsonl"
    assert (tmp_path / "parts" / log).read_bytes() == (tmp_path / "whole" / log).read_bytes()
    steps = [row["step"] for row in map(json.loads, (tmp_path / "whole" / log).open())]
    assert steps == sorted(steps)
    assert [s for s in steps if s % 3 == 0][-1] == 18


@pytest.mark.table
@pytest.mark.parametrize("devices", [1, 2])
def test_several_updates_a_call_change_no_bit(tmp_path, devices, monkeypatch):
    """Nor a row of the log, also where a run goes on from the middle."""
    how = {"log_every": 4, "checkpoint_every": 7, "ema": 0.9, "model": {"dropout": 0.3}}
    data, log = tiny.dataset(), "metrics.jsonl"
    calls = []
    real = tiny.DataParallel.train
    monkeypatch.setattr(
        tiny.DataParallel, "train", lambda *given: calls.append(type(given[2])) or real(*given)
    )
    one, _ = train(tiny.config(**how), tmp_path / "one", data=data, devices=devices)
    assert len(calls) == STEPS
    made = tiny.config(**how, updates_per_call=2)
    two, _ = train(made, tmp_path / "two", data=data, devices=devices)
    assert Several in calls
    assert params_sha256(two.params) == params_sha256(one.params)
    assert (tmp_path / "two" / log).read_bytes() == (tmp_path / "one" / log).read_bytes()
    CheckpointStore(seed_directory(tmp_path / "two", 0, "last")).drop_after(7)
    again, _ = train(made, tmp_path / "two", data=data, devices=devices)
    assert params_sha256(again.params) == params_sha256(one.params)


@pytest.mark.table
def test_a_step_that_is_not_finite_is_named_among_several_of_a_call(tmp_path):
    data = tiny.dataset().replace(valid=None)
    full = np.full_like(data.train.lengths, 8)  # one padded length: all steps go together

    def with_bad(row):
        x = data.train.x.copy()
        x[row] = np.inf
        return data.replace(train=Examples(x, full, data.train.y))

    def first_bad(data):
        batches = (tiny_batches(data).batch_at(i)["x"] for i in range(STEPS))
        return next(i for i, batch in enumerate(batches) if not np.isfinite(batch).all())

    bad = next(found for found in map(with_bad, range(44)) if first_bad(found) == 1)
    with pytest.raises(DivergedError, match="seed 0: step 2 is not finite"):
        train(tiny.config(updates_per_call=2, log_every=4), tmp_path, data=bad)


@pytest.mark.table
def test_the_best_checkpoint_is_scored_when_asked(tmp_path):
    made = tiny.config(select="best", evaluate_every=2, optimizer={"learning_rate": 0.3})
    outcome, run = train(made, tmp_path)
    rows = [r for r in run.log.rows() if r["split"] == "valid"]
    best = max(rows, key=lambda r: (r["accuracy"], -r["loss"], -r["step"]))
    assert outcome.step == best["step"]
    assert len({r["accuracy"] for r in rows}) > 1


@pytest.mark.table
def test_averaged_parameters_are_those_of_the_definition(tmp_path):
    data = tiny.dataset()
    parallel, state, _, _ = tiny.parts(tiny.config(ema=0.8), data)
    batches = tiny_batches(data)
    average = jax.tree.map(np.array, state.params)
    for index in range(3):
        state, _ = parallel.train(state, batches.batch_at(index))
        new = jax.tree.map(np.array, state.params)
        average = jax.tree.map(lambda a, p: 0.8 * a + 0.2 * p, average, new)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), average, state.ema)


@pytest.mark.table
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    data = tiny.dataset()
    x = data.train.x.copy()
    x[:, 0] = np.inf
    data = data.replace(train=Examples(x, data.train.lengths, data.train.y), valid=None)
    told = r"seed 0: step 1 is not finite: forward: .* all rows of the batch; the data hold values"
    with pytest.raises(DivergedError, match=told):
        train(tiny.config(log_every=2), tmp_path, data=data)


def test_evaluations_are_once_an_epoch_but_at_most_fifty():
    assert evaluate_every(tiny.config().train, 9, 90) == 9
    assert evaluate_every(tiny.config().train, 9, 900) == 18
    assert evaluate_every(tiny.config(evaluate_every=4).train, 9, 900) == 4


def tiny_batches(data):
    from resnorm_jax.data import TrainBatches

    return TrainBatches(data.train, 16, (5, 8), 0)


def test_following_the_step_takes_few_files():
    """From train.py to the gradient, the functions on the way, each in its file."""
    from resnorm_jax.cli import train as command
    from resnorm_jax.training import devices, experiment, losses, model_state, step

    way = [
        (command.main, "cli/train.py"),
        (experiment.run_experiment, "training/experiment.py"),
        (loop.train_seed, "training/loop.py"),
        (devices.DataParallel.train, "training/devices.py"),
        (step.train_step, "training/step.py"),
        (model_state.gradient, "training/model_state.py"),
        (losses.classification_sums, "training/losses.py"),
    ]
    for function, file in way:
        assert sys.modules[function.__module__].__file__.endswith(file)
    assert 1 + len(way) <= 12


@pytest.mark.table
@pytest.mark.parametrize("devices", [1, 2])
def test_batches_that_go_ahead_change_no_bits(tmp_path, devices):
    """As on an accelerator: put onto the devices while the step before runs. Compiled as often."""
    made, data = tiny.config(checkpoint_every=7, model={"dropout": 0.3}), tiny.dataset()
    whole, first = train(made, tmp_path / "host", data=data, devices=devices)
    run, state = tiny.run(made, data, tmp_path / "ahead", devices, STEPS)
    run.parallel.ahead = True
    put = run.parallel.put(loop.TrainBatches(data.train, 16, run.buckets, 0).batch_at(0))
    assert all(len(array.sharding.device_set) == devices for array in put.values())
    ahead = train_seed(run, 0, state, STEPS)
    assert params_sha256(ahead.params) == params_sha256(whole.params)
    assert run.parallel.programs == first.parallel.programs
    assert [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("host", "ahead")] == [
        (tmp_path / "host" / "metrics.jsonl").read_bytes()
    ] * 2


@pytest.mark.table
def test_the_phases_of_a_run_add_up(tmp_path):
    made = tiny.config(checkpoint_every=7)
    run, state = tiny.run(made, tiny.dataset(), tmp_path)
    run.phases.programs = lambda: run.parallel.programs
    train_seed(run, 0, state, STEPS)
    told = run.phases.told()
    spent = {name for name, seconds in told.items() if seconds > 0}
    assert spent >= {"data", "compile", "step", "dispatch", "evaluation", "save", "other"}
    assert told["compile"] > max(told[name] for name in ("data", "step", "dispatch", "save"))
