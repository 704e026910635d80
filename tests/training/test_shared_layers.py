"""Fine-tuning and sharding of layers that share parameters, beside the same layers with copies."""

from dataclasses import replace

import jax
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict
from tiers import every

from resnorm_jax.config import MeshConfig
from resnorm_jax.data import TrainBatches
from resnorm_jax.errors import UserError
from resnorm_jax.training.devices import DataParallel, check_replicated
from resnorm_jax.training.learned import trained_line
from resnorm_jax.training.sharded import Sharded
from resnorm_jax.training.step import create_state, train_step

DEPTH, GROUPS = 4, 2
SGD = {"algorithm": "sgd", "learning_rate": 1.0, "schedule": "constant", "clip": None}
LORA = {"lora_rank": 2, "lora_alpha": 4.0, "lora_on": "query,out,fc1"}
# Of each case the rate of the front, of the two sets of layers, and of what follows them.
CASES = {
    "all": ({}, (1, (1, 1), 1)),
    "by layer": ({"layer_decay": 0.5}, (0.125, (0.25, 0.5), 1)),
    "frozen": ({"frozen": "layers:1"}, (1, (0, 1), 1)),
    "frozen, by layer": (
        {"frozen": "layers:2,embeddings", "layer_decay": 0.5}, (0, (0.25, 0), 1),
    ),
    "low rank": (LORA, (0, (0, 0), 1)),
    "low rank, by layer": ({**LORA, "layer_decay": 0.5}, (0, (0, 0), 1)),
}  # fmt: skip


def config(groups, dropout=0.0, **optimizer):
    model = {"depth": DEPTH, "layer_groups": groups, "dropout": dropout}
    return tiny.config(model=model, optimizer={**SGD, **optimizer})


def moved(state):
    """Parameters of which none is zero: the matrices B of low rank are, at first."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: np.asarray(a + 0.1 * rng.normal(size=a.shape), a.dtype), state.params
    )


def step_of(made, params, batch):
    """What one update takes away from parameters, by path."""
    _, options, state = tiny.started(made)
    state = create_state({"params": params}, options.optimizer, 0, None, options.names)
    new, _ = jax.jit(lambda s: train_step(s, batch, options))(state)
    before, after = flatten_dict(params, sep="/"), flatten_dict(new.params, sep="/")
    return {path: np.asarray(before[path] - after[path]) for path in before}


def copied(params, times):
    """Each layer's parameters, and low-rank matrices, as many times in a row."""
    flat = flatten_dict(params, sep="/")
    return unflatten_dict(
        {p: np.repeat(a, times, 0) if "/layers/" in p else a for p, a in flat.items()}, sep="/"
    )


def rates(case, path):
    """The rate of a parameter, or of each of its layers."""
    optimizer, (front, layers, after) = CASES[case]
    if path.startswith("lora/"):
        decay = optimizer.get("layer_decay", 1)
        return np.array([decay**2, decay])
    if "/layers/" in path:
        return np.array(layers)
    return front if path.startswith(("front_end", "positions")) else after * (
        0 if "lora_rank" in optimizer and not path.startswith("head") else 1
    )  # fmt: skip


@pytest.mark.parametrize("case", every(CASES, default=["frozen, by layer", "low rank, by layer"]))
def test_an_update_is_the_sum_of_those_of_copies_at_the_rate_of_their_set(case):
    optimizer, _ = CASES[case]
    low_rank = {name: optimizer[name] for name in LORA if name in optimizer}
    batch = tiny.batch_of(tiny.dataset())
    shared = config(GROUPS, **optimizer)
    params = moved(tiny.started(shared)[2])
    found = step_of(shared, params, batch)
    # Without low rank all of the copies are trained, at one rate.
    wanted = step_of(config(None, **low_rank), copied(params, DEPTH // GROUPS), batch)
    for path, value in found.items():
        expected, rate = wanted[path], rates(case, path)
        if "/layers/" in path:
            expected = expected.reshape(GROUPS, -1, *expected.shape[1:]).sum(1)
            rate = rate.reshape(-1, *[1] * (expected.ndim - 1))
        tolerance = 2e-5 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(value, rate * expected, atol=tolerance, err_msg=path)


def test_what_is_trained_is_counted_by_sets():
    _, options, state = tiny.started(config(GROUPS, **LORA))
    matrices = GROUPS * 2 * ((8 + 8) + (8 + 8) + (8 + 32))  # rank 2; inputs and outputs
    assert sum(a.size for a in jax.tree.leaves(state.params["lora"])) == matrices
    assert trained_line(state.params, options.learned).startswith(
        f"trained: {matrices + 8 * 3 + 3} "
    )
    _, options, state = tiny.started(config(GROUPS, frozen="layers:1"))
    one = sum(a[0].size for a in jax.tree.leaves(state.params["encoder"]["layers"]))
    whole = sum(a.size for a in jax.tree.leaves(state.params))
    assert trained_line(state.params, options.learned).startswith(f"trained: {whole - one:,} of")


def test_a_layer_behind_the_last_set_is_one_line():
    said = r"'layers:3': the encoder has layers 1 to 2; those that share parameters .* count as one"
    with pytest.raises(UserError, match=said):
        tiny.started(config(GROUPS, frozen="layers:3"))


@pytest.mark.table
@pytest.mark.parametrize("groups", [1, GROUPS])
@pytest.mark.parametrize("case", CASES)
def test_sharded_is_pmap_dropout_included(case, groups):
    optimizer = {**CASES[case][0], "algorithm": "sgd", "learning_rate": 0.1}
    if groups == 1:
        optimizer.pop("frozen", None)
    data = tiny.dataset()
    _, options, state = tiny.started(config(groups, 0.1, **optimizer), data)
    options = replace(options, log_every=1)
    state = create_state({"params": moved(state)}, options.optimizer, 0, 0.9, options.names)
    state, devices = jax.tree.map(np.array, state), jax.local_devices()[:2]
    batch = TrainBatches(data.train, 16, (8,), 0).batch_at(0)
    ends = []
    for door in (
        Sharded(options, devices, None, MeshConfig(fsdp=2)),
        DataParallel(options, devices),
    ):
        placed, losses = door.replicate(state), []
        for _ in range(2):
            placed, sums = door.train(placed, batch)
            losses.append(float(sums["loss"]) / float(sums["count"]))
        check_replicated(placed)
        ends.append((placed.params, losses))
        if isinstance(door, Sharded):
            kernel = placed.params["encoder"]["layers"]["feed_forward"]["branch"]["fc1"]["kernel"]
            assert {s.data.shape for s in kernel.addressable_shards} == {(groups, 8, 16)}
    (found, losses), (wanted, those) = ends
    np.testing.assert_allclose(losses, those, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
