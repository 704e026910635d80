"""Models that keep running statistics, or are told the step: trained, evaluated, saved, resumed."""

import json

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from rich.console import Console
from tiers import every

import resnorm_jax as rn
from resnorm_jax.build import DEVICE_AXIS
from resnorm_jax.cli import main as command
from resnorm_jax.config import experiment, from_dict
from resnorm_jax.data import TrainBatches
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.training import experiment as experiment_module
from resnorm_jax.training import loop, saved_run
from resnorm_jax.training.checkpoint import CheckpointStore
from resnorm_jax.training.devices import DataParallel, NotReplicatedError, check_replicated
from resnorm_jax.training.evaluation import predict
from resnorm_jax.training.experiment import run_experiment
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.loop import Run, train_seed
from resnorm_jax.training.model_state import packed
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.run_directory import seed_directory
from resnorm_jax.training.step import StepOptions, create_state, scored_variables

MOMENTUM = 0.75


class Growing(nn.Module):
    """A branch that counts for more as training goes on."""

    @nn.compact
    def __call__(self, x):
        step = self.variable("schedule", "step", lambda: jnp.zeros((), jnp.float32))
        return x * jnp.minimum(step.value, 10) / 10


class Model(nn.Module):
    """Dense, batch norm, a scheduled branch, mean over valid positions, head."""

    classes: int = 3
    axis_name: str | None = DEVICE_AXIS
    encoder: nn.Module = rn.TransformerEncoder(
        1, 1, attention="xla"
    )  # not called: a run tells of it

    @nn.compact
    def __call__(self, x, mask=None, *, deterministic=True):
        mask = jnp.ones(x.shape[:2], bool) if mask is None else mask
        h = nn.Dense(4, name="project")(jnp.where(mask[..., None], x, 0))
        norm = rn.BatchNorm(momentum=MOMENTUM, axis_name=self.axis_name, name="norm")
        h = norm(h, deterministic, mask=mask[..., None])
        h = h + Growing(name="growing")(jnp.tanh(h))
        pooled = h.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1)
        return nn.Dense(self.classes, name="head")(pooled)


def parts(data, devices=1, model=None, **train):
    made = tiny.config(**train)
    model = model or Model()
    optimizer, schedule = make_optimizer(made.optimizer, 20)
    options = StepOptions(
        model.apply, optimizer, accumulate=made.train.accumulate, ema=made.train.ema
    )
    parallel = DataParallel(options, jax.local_devices()[:devices])
    variables = init_variables(model, data, (5, 8), 0)
    state = create_state(variables, optimizer, 0, made.train.ema)
    return parallel, parallel.replicate(state), made, schedule


def host(tree):
    return jax.tree.map(lambda leaf: np.array(leaf, np.float64), tree)


def statistics_of(params, batch, rows=slice(None)):
    """Mean and variance of the projected valid positions of the real rows, in float64."""
    p = host(params)["project"]
    h = batch["x"][rows].astype(float) @ p["kernel"] + p["bias"]
    h = h[batch["mask"][rows] & (batch["weight"][rows][:, None] > 0)]
    return {"mean": h.mean(0), "var": h.var(0)} if len(h) else None


def moved(old, new):
    if new is None:
        return old
    return {k: MOMENTUM * old[k] + (1 - MOMENTUM) * new[k] for k in old}


def assert_close(found, expected):
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], rtol=2e-5, atol=2e-6)


@pytest.mark.table
@pytest.mark.parametrize(
    ("devices", "accumulate"),
    [(2, 4), *(pytest.param(*n, marks=pytest.mark.table) for n in ((1, 1), (8, 1), (1, 4)))],
)
def test_running_statistics_are_those_of_the_real_rows(devices, accumulate):
    data = tiny.dataset()
    parallel, state, _, _ = parts(data, devices, accumulate=accumulate)
    batches = TrainBatches(data.train, 16, (5, 8), 0)
    stats, fillers = {"mean": np.zeros(4), "var": np.ones(4)}, 0
    rows = np.arange(16).reshape(devices, accumulate, -1).swapaxes(0, 1).reshape(accumulate, -1)
    for index in range(7):
        batch = batches.batch_at(index)
        fillers += int((batch["weight"] == 0).sum())
        for part in rows:  # micro-batch i is the i-th part of every device's rows
            stats = moved(stats, statistics_of(state.params, batch, part))
        state, sums = parallel.train(state, batch)
        assert np.isfinite(float(sums["loss"]))
        assert_close(host(state.collections["batch_stats"]["norm"]), stats)
    assert fillers > 4  # a whole micro-batch of them too: 44 rows, 16 a batch
    check_replicated(state)


@pytest.mark.table
def test_loss_curve_does_not_depend_on_the_number_of_devices():
    data = tiny.dataset()

    def losses(devices):
        parallel, state, _, _ = parts(data, devices)
        batches = TrainBatches(data.train, 16, (5, 8), 0)
        out = []
        for index in range(8):
            state, sums = parallel.train(state, batches.batch_at(index))
            out.append(float(sums["loss"]) / float(sums["count"]))
        return np.array(out)

    one = losses(1)
    assert one[-1] < one[0]
    np.testing.assert_allclose(losses(8), one, rtol=2e-5)


class PowerModel(nn.Module):
    """As `Model`, with power norm."""

    @nn.compact
    def __call__(self, x, mask=None, *, deterministic=True):
        h = nn.Dense(4)(jnp.where(mask[..., None], x, 0))
        norm = rn.PowerNorm(warmup=3, axis_name=DEVICE_AXIS, name="norm")
        h = norm(h, mask=mask, deterministic=deterministic)
        return nn.Dense(3)(h.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1))


@pytest.mark.table
def test_what_is_overwritten_with_its_gradient_is_carried_on_any_number_of_devices():
    data = tiny.dataset()
    found = []
    for devices, accumulate in ((1, 1), (8, 1), (2, 2)):
        parallel, state, _, _ = parts(data, devices, PowerModel(), accumulate=accumulate)
        batches = TrainBatches(data.train, 16, (5, 8), 0)
        for index in range(6):
            state, _ = parallel.train(state, batches.batch_at(index))
        check_replicated(state)
        found.append(host((state.params, state.collections)))
    # Micro-batches are batches of their own: other numbers, as many updates more.
    assert found[0][1]["batch_stats"]["norm"]["count"] == 6
    assert found[2][1]["batch_stats"]["norm"]["count"] > 6
    nu = found[0][1]["_overwrite_with_gradient"]["norm"]["nu"]
    assert np.abs(nu).max() > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found[:2])


class Layer(nn.Module):
    """A layer whose norms keep state of every kind."""

    deterministic: bool

    @nn.compact
    def __call__(self, x, mask):
        for name in ("batch", "power"):
            norm = rn.norms.get(name).build(name=name, axis_name=DEVICE_AXIS)
            x = x + Growing()(norm(x, mask=mask, deterministic=self.deterministic))
        return x, None


class Stack(nn.Module):
    """Three scanned layers: state stacked by layer, the step shared."""

    @nn.compact
    def __call__(self, x, mask=None, *, deterministic=True):
        stack = nn.scan(
            Layer,
            variable_axes={"params": 0, "batch_stats": 0, "_overwrite_with_gradient": 0},
            variable_broadcast="schedule", split_rngs={"params": True},
            in_axes=nn.broadcast, length=3,
        )  # fmt: skip
        h = nn.Dense(4)(jnp.where(mask[..., None], x, 0))
        h, _ = stack(deterministic, name="layers")(h, mask)
        return nn.Dense(3)(h.sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1))


@pytest.mark.table
def test_a_scanned_stack_keeps_a_state_by_layer():
    data = tiny.dataset()
    found = []
    for devices in (1, 4):
        parallel, state, _, _ = parts(data, devices, Stack())
        batches = TrainBatches(data.train, 16, (5, 8), 0)
        for index in range(4):
            state, _ = parallel.train(state, batches.batch_at(index))
        check_replicated(state)
        found.append(host((state.params, state.collections)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
    collections = found[0][1]
    mean = collections["batch_stats"]["layers"]["batch"]["mean"]
    assert mean.shape == (3, 4)
    assert np.abs(mean[0] - mean[2]).max() > 1e-3
    assert np.abs(collections["_overwrite_with_gradient"]["layers"]["power"]["nu"]).max() > 1e-4
    assert {float(s) for s in jax.tree.leaves(collections["schedule"])} == {3.0}


@pytest.mark.table
def test_what_fills_a_batch_changes_nothing():
    data = tiny.dataset()
    batch = TrainBatches(data.train, 16, (8,), 0).batch_at(0)
    batch["weight"][10:] = 0
    other = {**batch, "x": np.where(batch["weight"][:, None, None] > 0, batch["x"], 1e3)}
    found = []
    for rows in (batch, other):
        parallel, state, _, _ = parts(data)
        state, _ = parallel.train(state, rows)
        found.append((state.params, state.collections))
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.table
def test_statistics_that_devices_do_not_share_are_found():
    data = tiny.dataset()
    parallel, state, _, _ = parts(data, 2, Model(axis_name=None))
    state, _ = parallel.train(state, TrainBatches(data.train, 16, (8,), 0).batch_at(0))
    with pytest.raises(NotReplicatedError, match="batch_stats/norm/mean differs"):
        check_replicated(state)


@pytest.mark.table
def test_the_schedule_is_the_number_of_updates_done():
    data = tiny.dataset()
    parallel, state, _, _ = parts(data, 2, accumulate=2, ema=0.9)
    batches = TrainBatches(data.train, 16, (8,), 0)
    for index in range(3):
        variables = scored_variables(state)
        assert variables["schedule"]["growing"]["step"] == index
        state, _ = parallel.train(state, batches.batch_at(index))
        used = state.collections["schedule"]["growing"]["step"]
        assert (used, used.dtype) == (index, jnp.float32)
    # It is read: in prediction, and in the gradient.
    variables = scored_variables(state)
    assert variables["params"] is state.ema
    late = {**variables, "schedule": {"growing": {"step": jnp.float32(10)}}}
    rows = batches.batch_at(0)
    assert np.abs(parallel.predict(variables, rows) - parallel.predict(late, rows)).max() > 1e-3
    moved = state.replace(step=state.step + 7)
    steps = [parallel.train(s, rows)[0].params["head"]["kernel"] for s in (copy(state), moved)]
    assert np.abs(np.asarray(steps[0]) - np.asarray(steps[1])).max() > 1e-5


def copy(state):
    return jax.tree.map(jnp.copy, state)


@pytest.mark.table
def test_evaluation_uses_the_running_statistics():
    data = tiny.dataset()
    parallel, state, _, _ = parts(data)
    state, _ = parallel.train(state, TrainBatches(data.train, 16, (8,), 0).batch_at(0))
    variables = scored_variables(state)
    together = predict(parallel, variables, data.test, 16, (8,))
    alone = predict(parallel, variables, data.test, 1, (8,))
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    mask = np.arange(8) < data.test.lengths[:, None]
    logits = Model().apply(variables, data.test.x, mask)
    np.testing.assert_allclose(together, jax.nn.log_softmax(logits), rtol=1e-5, atol=1e-6)


@pytest.mark.table
@pytest.mark.parametrize("select", every(["last", "best"], ["best"]))
def test_resume_is_bit_equal(tmp_path, select, monkeypatch):
    data = tiny.dataset()

    def train(workdir):
        options = {"select": select, "checkpoint_every": 5, "ema": 0.9, "evaluate_every": 4}
        parallel, state, made, schedule = parts(data, 2, **options)
        log = MetricsLog(workdir / "metrics.jsonl")
        quiet = Console(quiet=True)
        run = Run(made.train, data, parallel, schedule, (5, 8), workdir, log, quiet)
        return train_seed(run, 0, state, 12)

    class StopError(Exception):
        pass

    def stopping(*given):
        for index, batch in iterate(*given):
            if index == 7:
                raise StopError
            yield index, batch

    whole, iterate = train(tmp_path / "whole"), loop.iterate
    with monkeypatch.context() as patch:
        patch.setattr(loop, "iterate", stopping)
        with pytest.raises(StopError):
            train(tmp_path / "parts")
    assert CheckpointStore(seed_directory(tmp_path / "parts", 0, "last")).steps() == [5]
    resumed = train(tmp_path / "parts")
    assert resumed.step == whole.step
    assert set(resumed.variables) == {"params", "batch_stats", "schedule"}
    jax.tree.map(np.testing.assert_array_equal, resumed.variables, whole.variables)
    assert resumed.variables["schedule"]["growing"]["step"] == whole.step
    assert np.abs(whole.variables["batch_stats"]["norm"]["mean"]).max() > 1e-3


@pytest.mark.parametrize("select", every(["last", "best"]))
def test_commands_score_a_run_by_its_running_statistics(tmp_path, select, monkeypatch, capsys):
    for module in (experiment_module, saved_run):
        monkeypatch.setattr(
            module, "build_model", lambda config, meta: Model(classes=len(meta["classes"]))
        )
    values = experiment(
        data={"source": "digits", "view": "rows"},
        train={"steps": 6, "batch_size": 64, "select": select, "validation": 0.2},
        devices=2,
    )
    report = run_experiment(from_dict(values.to_dict()), tmp_path, Console(quiet=True))
    found = saved_run.load_trained(tmp_path)
    assert found.variables["schedule"]["growing"]["step"] == found.step
    assert np.abs(found.variables["batch_stats"]["norm"]["mean"]).max() > 1e-3
    assert command.main(["evaluate", str(tmp_path), "--output", str(tmp_path / "s.json")]) in (
        0,
        None,
    )
    capsys.readouterr()
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["accuracy"] == report["accuracy"]


def test_a_state_without_collections_is_stored_as_it_was_before_there_were_any():
    state = create_state({"params": {"kernel": jnp.ones(2)}}, optax.sgd(0.1), 0, None)
    names = set(flax.serialization.to_state_dict(state))
    assert names == {"step", "key", "params", "opt_state", "ema", "sums"}
    restored = flax.serialization.from_state_dict(state, flax.serialization.to_state_dict(state))
    assert restored.collections == {}
    assert packed(scored_variables(state)) is state.params


def test_a_collection_that_the_trainer_does_not_know_is_an_error():
    with pytest.raises(ValueError, match="the model has the collection 'cache'; the trainer knows"):
        create_state({"params": {}, "cache": {}}, optax.sgd(0.1), 0, None)


@pytest.mark.table
def test_whole_rows_of_images_may_be_masked():
    """Images have no mask of positions: the trainer masks whole rows that fill a batch."""
    model = rn.SequenceClassifier(
        classes=3, front_end=rn.PatchEmbedding(8, 2), max_length=4,
        encoder=rn.TransformerEncoder(depth=1, heads=2),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), x)
    mask = np.array([[True], [False], [True]])
    found, expected = model.apply(variables, x, mask), model.apply(variables, x)
    np.testing.assert_allclose(found[mask[:, 0]], expected[mask[:, 0]], rtol=1e-6, atol=1e-6)
    other = model.apply(variables, np.where(mask[..., None, None], x, np.nan), mask)
    np.testing.assert_array_equal(found, other)
