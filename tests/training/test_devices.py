"""Data-parallel training: the same numbers on any number of devices, and a check that it is so."""

import math
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny
from jax import lax
from jax.experimental.pallas import triton
from kernel_calls import kernels
from tiers import every

from resnorm_jax.data import TrainBatches
from resnorm_jax.errors import UserError
from resnorm_jax.training import devices as devices_module
from resnorm_jax.training import step as step_module
from resnorm_jax.training.devices import NotReplicatedError, check_replicated, choose_devices
from resnorm_jax.training.evaluation import evaluate, predict

STEPS = 20


def losses(devices: int, **train) -> np.ndarray:
    data = tiny.dataset()
    parallel, state, _, _ = tiny.parts(tiny.config(**train), data, devices)
    batches = TrainBatches(data.train, 16, (5, 8), 0)
    out = []
    for index in range(STEPS):
        state, sums = parallel.train(state, batches.batch_at(index))
        out.append(float(sums["loss"]) / float(sums["count"]))
    check_replicated(state)
    return np.array(out)


@pytest.fixture(scope="module")
def one_device() -> np.ndarray:
    return losses(1)


def test_there_are_eight_devices():
    assert len(jax.local_devices()) == 8


@pytest.mark.parametrize("devices", every([2, 8]))
def test_loss_curve_does_not_depend_on_the_number_of_devices(devices, one_device):
    assert one_device[-1] < one_device[0]  # it trains
    np.testing.assert_allclose(losses(devices), one_device, rtol=1e-5)


@pytest.mark.table
def test_accumulation_does_not_change_the_loss_curve(one_device):
    np.testing.assert_allclose(losses(2, accumulate=2), one_device, rtol=1e-5)


@pytest.mark.table
def test_a_missing_sum_over_devices_is_found(monkeypatch):
    # out_axes=None hands on the first device's state without a word: the check must not.
    monkeypatch.setattr(step_module.lax, "psum", lambda tree, axis_name: tree)
    with pytest.raises(NotReplicatedError, match="differs between devices"):
        losses(2)
    monkeypatch.undo()
    assert step_module.lax.psum is lax.psum


@pytest.mark.parametrize("kind", every(["dropout", "drop_path"]))
def test_masks_differ_between_devices_and_agree_between_restarts(kind):
    # The same two rows on each device: equal masks would give equal gradients, hence a loss curve
    # that is that of one device with two rows.
    data = tiny.dataset()
    made = tiny.config(model={kind: 0.5})
    batch = TrainBatches(data.train, 2, (8,), 0).batch_at(0)
    twice = {name: np.concatenate([value, value]) for name, value in batch.items()}

    def loss(devices, rows):
        parallel, state, _, _ = tiny.parts(made, data, devices)
        _, sums = parallel.train(state, rows)
        return float(sums["loss"]) / float(sums["count"])

    assert loss(2, twice) == loss(2, twice)
    assert abs(loss(2, twice) - loss(1, batch)) > 1e-4


@pytest.mark.parametrize("devices", every([1, 8]))
def test_evaluation_counts_every_row_once(devices):
    data = tiny.dataset(rows=46)  # 23 test rows: they divide by neither batch nor devices
    parallel, state, options, _ = tiny.parts(tiny.config(), data, devices)
    rows = data.test
    log_probs = predict(parallel, {"params": state.params}, rows, 16, (5, 8))
    mask = np.arange(8) < rows.lengths[:, None]
    logits = options.apply({"params": state.params}, rows.x, mask)
    np.testing.assert_allclose(log_probs, jax.nn.log_softmax(logits), atol=1e-5)
    found = evaluate(parallel, {"params": state.params}, rows, data.classes, 16, (5, 8))
    assert found["accuracy"] == np.mean(np.argmax(logits, -1) == rows.y)
    assert sum(map(sum, found["confusion"])) == len(rows) == 23


def test_rows_that_do_not_divide_are_one_line():
    with pytest.raises(UserError, match=r"batch_size: 12 rows do not divide by 8 devices; try 16"):
        choose_devices(0, 12, 1)
    with pytest.raises(UserError, match=r"config.devices: 9 asked for, 8 found"):
        choose_devices(9, 18, 1)
    assert len(choose_devices(3, 12, 2)) == 3


def test_processes_have_as_many_devices_each(monkeypatch):
    found = [
        SimpleNamespace(process_index=i, id=n) for i, n in [(1, 2), (0, 0), (1, 3), (0, 1), (1, 4)]
    ]
    monkeypatch.setattr(devices_module.jax, "devices", lambda: found)
    assert [device.id for device in devices_module._of_all(2)] == [0, 1, 2, 3]
    with pytest.raises(
        UserError, match=r"process 1 has 3 devices and process 0 has 2; .* devices=2"
    ):
        devices_module._of_all(0)


def all_reduced(text: str) -> list[int]:
    """Bytes that each all-reduce of a compiled program sums."""
    lines = [line for line in text.splitlines() if re.search(r" all-reduce(-start)?\(", line)]
    shapes = [re.findall(r"f32\[([\d,]*)\]", line.split(" all-reduce")[0]) for line in lines]
    return [
        sum(4 * math.prod(int(n) for n in dims.split(",") if n) for dims in found)
        for found in shapes
    ]


def test_one_sum_travels_between_devices_of_the_gradients_bytes_and_three_numbers():
    parallel, state, batch, size = tiny.linear(8)
    text = tiny.compiled(parallel, state, batch)
    assert all_reduced(text) == [size + 3 * 4]  # loss, correct, count
    # What comes in as the state goes out as the state, in the same memory.
    donated = re.search(r"input_output_alias={(.*?) }, entry", text)[1].count("may-alias")
    assert donated == len(jax.tree.leaves(state))


def test_a_program_is_compiled_once_for_each_shape():
    parallel, state, batch, _ = tiny.linear(8)
    shorter = {**batch, "x": batch["x"][:, :2], "mask": batch["mask"][:, :2]}
    names = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **kw: names.append(kw.get("fun_name")) if "backend_compile" in event else 0
    )
    for rows in (batch, shorter, batch, shorter, batch):
        state, _ = parallel.train(state, rows)
        parallel.predict({"params": state.params}, rows)
    assert parallel.programs == 4 == names.count("jit(over_devices)")


@pytest.mark.table
@pytest.mark.skipif(hasattr(triton, "get_gpu_info"), reason="jax 0.11 lowers for a GPU at hand")
@pytest.mark.parametrize("devices", [1, 4])
def test_the_step_of_a_run_has_each_devices_norm_kernels(devices):
    """Two layers of two sublayers and the final norm: five norms, forward and backward."""
    data, made = tiny.dataset(), tiny.config(model={"unroll": 2})  # as "auto" is on a GPU
    parallel, state, *_ = tiny.parts(made, data, devices=devices)
    batch = TrainBatches(data.train, 16, (8,), 0).batch_at(0)
    batch.pop("lengths")
    traced = parallel._train.trace(state, dict(parallel.put(batch)))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert kernels(text) == [5, 5]
