"""A run on another number of devices: a row draws the same dropout on any."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from tiers import every
from training import tiny
from training.test_devices import losses
from training.test_identity import identity

from resnorm_jax.build import build_model
from resnorm_jax.data import TrainBatches, describe
from resnorm_jax.errors import UserError
from resnorm_jax.ops.attention import chunks
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.training.elastic import by_devices, check_devices
from resnorm_jax.training.forensics import watch_step
from resnorm_jax.training.initial import init_variables
from resnorm_jax.training.loop import train_seed

DROPS = {
    "dropout": {"model": {"dropout": 0.3, "drop_path": 0.2, "attention_dropout": 0.3}},
    "micro-batches": {"model": {"dropout": 0.3}, "accumulate": 2},
    "attention of two rows at a time": {
        "model": {"attention_dropout": 0.3, "attention": "chunked"}
    },
    "relative positions": {"model": {"dropout": 0.3, "relative": "disentangled"}},
}


@pytest.mark.parametrize("kind", every(list(DROPS)))
def test_a_row_draws_the_same_on_any_number_of_devices(kind, monkeypatch):
    # Of 16 rows two heads each, of 64 queries by 8 positions at most: two rows at a time.
    monkeypatch.setitem(chunks.SCORES, "cpu", 64 * 8 * 2 * 2)
    one = losses(1, **DROPS[kind])
    for devices in (2, 8):
        np.testing.assert_allclose(losses(devices, **DROPS[kind]), one, rtol=1e-5)
    assert abs(one - losses(1)).max() > 1e-3  # there is dropout


def why(made) -> str:
    data = tiny.dataset()
    model = build_model(made, describe(data))
    return by_devices(made, jax.eval_shape(lambda: init_variables(model, data, (5, 8), 0)))


def test_what_depends_on_the_number_of_devices_is_known():
    dropout = tiny.config(model={"dropout": 0.2})
    assert why(dropout) == ""
    with jax.default_prng_impl("rbg"):
        assert why(dropout) == "model.dropout=0.2 draws by device with jax_default_prng_impl=rbg"
        assert why(tiny.config()) == ""
    with jax.threefry_partitionable(False):
        assert why(dropout).endswith("draws by device with jax_threefry_partitionable=False")
    norm = {"norm": "batch"}
    assert why(tiny.config(model=norm)) == ""
    assert "batch statistics" in why(tiny.config(model=norm, accumulate=2))


@pytest.mark.parametrize(("before", "after", "steps", "allowed", "refused"), [
    (4, 2, {"seed_0": 3}, False, True),
    (4, 2, {"seed_0": 3}, True, False),
    (4, 2, {}, False, False),  # no step is done yet
    (4, 4, {"seed_0": 3}, False, False),
])  # fmt: skip
def test_a_run_that_depends_on_it_is_refused(before, after, steps, allowed, refused):
    stored, now = identity(devices=before), identity(devices=after, any_devices=allowed)
    check_devices(stored, now, steps, "", Path("run"))
    if not refused:
        check_devices(stored, now, steps, "model.dropout=0.2 draws", Path("run"))
        return
    with pytest.raises(UserError) as error:
        check_devices(stored, now, steps, "model.dropout=0.2 draws by device", Path("run"))
    assert str(error.value) == (
        "--workdir: run has begun on 4 devices, and now has 2 devices; its losses would be others, "
        "because model.dropout=0.2 draws by device; give it as many, or go on with "
        "--config.train.any_devices=True"
    )


@pytest.mark.parametrize("axis", ["tensor", "sequence"])
def test_a_mesh_counts_by_its_groups_of_rows(axis):
    pmap = identity(devices=4)
    mesh = {"parallel": "sharded", "mesh": {"fsdp": None, "tensor": 1, axis: 2}}
    sharded = replace(pmap, config=pmap.config | mesh, runtime=pmap.runtime | {"devices": 8})
    check_devices(pmap, sharded, {"seed_0": 3}, "it draws", Path("run"))


@pytest.mark.table
@pytest.mark.parametrize("devices", [1, 2])
def test_a_step_that_is_done_again_draws_the_same(devices):
    data, made = tiny.dataset(), tiny.config(model={"dropout": 0.5}, accumulate=2)
    parallel, state, options, _ = tiny.parts(made, data, devices)
    batch = TrainBatches(data.train, 16, (8,), 0).batch_at(0)
    seen = watch_step(options, jax.device_get(state), batch, devices)
    _, sums = parallel.train(state, batch)
    np.testing.assert_allclose(seen.losses.sum(), sums["loss"], rtol=1e-5)


@pytest.mark.table
def test_a_run_goes_on_with_other_devices_and_the_same_losses(tmp_path):
    made = tiny.config(checkpoint_every=4, model={"dropout": 0.3, "drop_path": 0.2})

    def logged(folder, *parts):
        for devices, until in parts:
            run, state = tiny.run(made, tiny.dataset(), folder, devices, 12)
            train_seed(run, 0, state, until)
        rows = [
            row for row in MetricsLog(folder / "metrics.jsonl").rows() if row["split"] == "train"
        ]
        assert [row["step"] for row in rows] == list(range(1, 13))
        return [row["loss"] for row in rows]

    whole = logged(tmp_path / "whole", (1, 12))
    np.testing.assert_allclose(
        logged(tmp_path / "parts", (4, 4), (2, 8), (1, 12)), whole, rtol=1e-5
    )
