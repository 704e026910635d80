"""Kernels of unit length through a run: before its first step, and after its steps on two devices."""

import jax
import numpy as np
import pytest
import tiny
from rich.console import Console

from resnorm_jax.training import experiment
from resnorm_jax.training.loop import train_seed

OPTIMIZER = {"unit_weights": True, "weight_decay": 0.0}


def lengths(params):
    """Of every kernel of the first layer along the stream's axis, one array a kernel."""
    layer = jax.tree.map(lambda a: a[0], params["encoder"]["layers"])
    a, f = layer["attention"]["branch"], layer["feed_forward"]["branch"]
    axes = ((a["query"], 0), (a["key"], 0), (a["value"], 0), (a["out"], 2), (f["fc1"], 0),
            (f["fc2"], 1))  # fmt: skip
    return [np.linalg.norm(module["kernel"], axis=axis) for module, axis in axes]


def made(**fields):
    model = {"arrangement": "ngpt", "depth": 1}
    return tiny.config(model=model, optimizer=OPTIMIZER, checkpoint_every=100, **fields)


@pytest.mark.table
def test_unit_kernels_after_some_steps(tmp_path):
    run, state = tiny.run(made(), tiny.dataset().replace(valid=None), tmp_path, devices=2, steps=3)
    before = [np.asarray(leaf) for leaf in lengths(state.params)]
    assert max(np.abs(one - 1).max() for one in before) > 0.1  # tiny.run does not normalize
    outcome = train_seed(run, 0, state, 3)
    for one in lengths(outcome.params):
        np.testing.assert_allclose(one, 1.0, rtol=1e-5)


@pytest.mark.table
def test_a_run_starts_from_unit_kernels(tmp_path, monkeypatch):
    seen = []

    class SeenError(Exception):
        """The run got as far as its first seed."""

    def stop(run, seed, state, steps):
        seen.append(state.params)
        raise SeenError

    monkeypatch.setattr(experiment, "train_seed", stop)
    with pytest.raises(SeenError):
        experiment.run_experiment(made(steps=1), tmp_path / "run", Console(quiet=True))
    for one in lengths(seen[0]):
        np.testing.assert_allclose(one, 1.0, rtol=1e-5)
    table = seen[0]["front_end"]["embed"]["embedding"]
    np.testing.assert_allclose(np.linalg.norm(table, axis=-1), 1.0, rtol=1e-5)
