"""The second door: the numbers of `jax.pmap`, with each device's share of parameters and state."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from jax.experimental.pallas import triton
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from kernel_calls import kernels
from rich.console import Console
from tiers import every

from resnorm_jax import arrangements
from resnorm_jax.bench.model import Size, our_model, random_batch
from resnorm_jax.bench.sharding import collectives
from resnorm_jax.build import build_model
from resnorm_jax.config import MeshConfig, from_dict
from resnorm_jax.data import TrainBatches, describe
from resnorm_jax.errors import UserError
from resnorm_jax.reporting.files import MetricsLog
from resnorm_jax.scaling import collectives as scaling
from resnorm_jax.training import summing
from resnorm_jax.training.checkpoint import CheckpointStore
from resnorm_jax.training.devices import (
    DataParallel,
    NotReplicatedError,
    check_replicated,
    choose_devices,
    share_of,
)
from resnorm_jax.training.doors import check_mesh, using
from resnorm_jax.training.experiment import run_experiment
from resnorm_jax.training.mesh import mesh_shape
from resnorm_jax.training.optimizers import make_optimizer
from resnorm_jax.training.partition import spec_of
from resnorm_jax.training.processes import Processes
from resnorm_jax.training.saved_run import load_trained
from resnorm_jax.training.sharded import Sharded
from resnorm_jax.training.step import StepOptions, create_state
from resnorm_jax.training.summing import scattered, summed

MESHES = {
    "data": MeshConfig(fsdp=1),
    "fsdp": MeshConfig(),
    "data x fsdp": MeshConfig(fsdp=4),
    "data x fsdp x tensor": MeshConfig(fsdp=2, tensor=2),
}


SEQUENCES = {
    "data x sequence": MeshConfig(fsdp=1, sequence=4),
    "fsdp x tensor x sequence": MeshConfig(fsdp=2, tensor=2, sequence=2),
}


def shares(mesh: MeshConfig) -> int:
    return 8 // (mesh.tensor * mesh.sequence)


def pmapped(options, mesh):
    """`jax.pmap` on as many devices as the mesh has groups with rows of their own."""
    return DataParallel(options, jax.local_devices()[: shares(mesh)])


def sharded(options, mesh):
    return Sharded(options, jax.local_devices(), None, mesh)


def small(dropout: float = 0.1):
    """Return ``(options, state on the host, batch)`` of a model of one layer whose axes divide by 8."""
    rng = np.random.default_rng(0)
    params = {
        "fc1": {"kernel": rng.normal(size=(8, 16)), "bias": np.zeros(16)},
        "head": {"kernel": rng.normal(size=(16, 5)), "bias": np.zeros(5)},
    }
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params)

    def apply(variables, x, mask=None, deterministic=True, rngs=None):
        fc1, head = variables["params"]["fc1"], variables["params"]["head"]
        h = jnp.tanh(x.mean(1) @ fc1["kernel"] + fc1["bias"])
        if not deterministic and dropout:
            h = h * jax.random.bernoulli(rngs["dropout"], 1 - dropout, h.shape)
        return h @ head["kernel"] + head["bias"]

    options = StepOptions(apply, optax.adamw(1e-2))
    batch = {
        "x": rng.normal(size=(16, 4, 8)).astype(np.float32),
        "y": (np.arange(16) % 5).astype(np.int32),
        "weight": np.ones(16, np.float32),
        "mask": np.ones((16, 4), bool),
    }
    state = create_state({"params": params}, options.optimizer, 0, None)
    return options, jax.tree.map(np.array, state), batch


def trained(door, state, batches):
    state, losses = door.replicate(state), []
    for batch in batches:
        state, sums = door.train(state, batch)
        losses.append(float(sums["loss"]) / float(sums["count"]))
        assert sums["finite"]
    check_replicated(state)
    return state, losses


def close(found, wanted, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        np.testing.assert_allclose(one, other, tolerance, tolerance * (1 + np.abs(other).max()))


@pytest.mark.parametrize(
    "name",
    every(
        {**MESHES, **SEQUENCES},
        default=["data x fsdp", "data x fsdp x tensor", "fsdp x tensor x sequence"],
    ),
)
def test_the_numbers_are_those_of_pmap_dropout_included(name):
    options, state, batch = small()
    mesh = {**MESHES, **SEQUENCES}[name]
    found, losses = trained(sharded(options, mesh), state, [batch] * 3)
    wanted, those = trained(pmapped(options, mesh), state, [batch] * 3)
    np.testing.assert_allclose(losses, those, rtol=1e-6)
    close((found.params, found.opt_state), (wanted.params, wanted.opt_state))
    np.testing.assert_allclose(
        sharded(options, mesh).predict({"params": found.params}, batch),
        pmapped(options, mesh).predict({"params": wanted.params}, batch), atol=1e-5,
    )  # fmt: skip


def compiled(door, state, batch):
    return door.lower(state, batch).compile()


def test_each_parameter_is_gathered_once_and_its_gradient_scattered_once():
    options, state, batch = small()
    door = sharded(options, MESHES["fsdp"])
    state = door.replicate(state)
    found = collectives(compiled(door, state, batch).as_text())
    divided = [leaf.nbytes for leaf in jax.tree.leaves(state.params) if leaf.size > 5]
    gathered = [size for kind, size in found if kind == "all-gather"]
    scattered = [8 * size for kind, size in found if kind == "reduce-scatter"]
    assert sorted(gathered) == sorted(scattered) == sorted(divided)
    # What is left are the metrics, the bias that no axis divides, and whether all is finite.
    left = [(kind, size) for kind, size in found if kind not in ("all-gather", "reduce-scatter")]
    assert {kind for kind, _ in left} == {"all-reduce"}
    assert sum(size for _, size in left) < 100


def test_a_device_has_its_share_of_the_state_and_the_memory_is_donated():
    options, state, batch = small()
    sizes = {}
    for name in ("data", "data x fsdp", "fsdp"):
        door = sharded(options, MESHES[name])
        program = compiled(door, door.replicate(state), batch)
        donated = re.search(r"input_output_alias={(.*?) }, entry", program.as_text())[1]
        assert donated.count("may-alias") == len(jax.tree.leaves(state))
        sizes[name] = program.memory_analysis().argument_size_in_bytes
    whole = 3 * 4 * (8 * 16 + 16 + 16 * 5)  # parameters and two moments that the mesh divides
    rest = sizes["data"] - whole
    assert sizes["data x fsdp"] == rest + whole // 4
    assert sizes["fsdp"] == rest + whole // 8


def test_a_program_is_compiled_once_for_each_shape():
    options, state, batch = small()
    door = sharded(options, MESHES["data x fsdp"])
    shorter = {**batch, "x": batch["x"][:, :2], "mask": batch["mask"][:, :2]}
    state = door.replicate(state)
    for rows in (batch, shorter, batch, door.put(shorter)):
        state, _ = door.train(state, rows)
        door.predict({"params": state.params}, dict(rows))
    assert door.programs == 4


def test_a_state_is_made_in_shares():
    options, host, _ = small()
    door = sharded(options, MESHES["fsdp"])
    create = door.created(
        lambda seed, variables: create_state(variables, options.optimizer, seed, 0.9)
    )
    state = create(np.uint32(0), {"params": host.params})
    kernel = state.params["fc1"]["kernel"]
    assert {s.data.shape for s in kernel.addressable_shards} == {(8, 2)}
    assert state.ema["fc1"]["kernel"].sharding == kernel.sharding
    moment = state.opt_state[0].mu["fc1"]["kernel"]
    assert moment.sharding == kernel.sharding
    close(state.params, host.params, 0)


@pytest.mark.parametrize("first", ["pmap", "sharded"])
def test_a_checkpoint_of_either_door_loads_in_the_other_on_other_devices(first, tmp_path):
    options, host, batch = small(dropout=0.0)  # masks depend on the number of devices
    doors = {
        "pmap": DataParallel(options, jax.local_devices()[:4]),
        "sharded": sharded(options, MESHES["fsdp"]),
    }
    before, after = doors.pop(first), *doors.values()
    _, wanted = trained(before, host, [batch] * 4)
    state, losses = trained(before, host, [batch] * 2)
    store = CheckpointStore(tmp_path)
    store.save(2, state, {})
    _, more = trained(after, store.restore(2, host), [batch] * 2)
    np.testing.assert_allclose(losses + more, wanted, rtol=1e-5)


def test_devices_that_disagree_on_one_part_are_found():
    options, state, _ = small()
    door = sharded(options, MESHES["data x fsdp"])
    kernel = door.replicate(state).params["fc1"]["kernel"]
    check_replicated(kernel)
    parts = [np.array(s.data) for s in kernel.addressable_shards]
    parts[5] += 1
    on = zip(parts, kernel.addressable_shards, strict=True)
    arrays = [jax.device_put(part, s.device) for part, s in on]
    wrong = jax.make_array_from_single_device_arrays(kernel.shape, kernel.sharding, arrays)
    with pytest.raises(NotReplicatedError, match="differs between devices"):
        check_replicated({"kernel": wrong})


SIZES = {"data": 1, "fsdp": 4, "tensor": 2}


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        # The first axis of a stack stays whole, however well it divides.
        ("encoder/layers/attention/branch/query/kernel", (64, 8, 2, 4), (None, "fsdp", "tensor", None)),
        ("encoder/layers_1/attention/branch/out/kernel", (3, 2, 4, 8), (None, "tensor", None, "fsdp")),
        ("0/mu/encoder/layers/feed_forward/branch/fc2/kernel", (3, 32, 8), (None, "tensor", "fsdp")),
        ("encoder/layers/feed_forward/norm_before/scale", (4, 8), (None, "fsdp")),
        ("encoder/layers/feed_forward/branch/fc1/bias", (3, 32), (None, "tensor")),
        ("encoder/layers/attention/branch/key/bias", (3, 1, 6), (None, None, None)),
        ("front_end/embed/embedding", (1000, 8), ("fsdp", None)),
        ("count", (), ()),
        ("encoder/layers/attention/gate", (4,), (None,)),
    ],
)  # fmt: skip
def test_layouts_by_role(path, shape, spec):
    assert tuple(spec_of(path, shape, SIZES)) == spec


@pytest.mark.parametrize(
    ("mesh", "devices", "line"),
    [
        (MeshConfig(sequence=3), 8,
         "config.mesh.sequence: 3 does not divide 8 devices; try sequence=2"),
        (MeshConfig(tensor=3, sequence=2), 8,
         "config.mesh.tensor: 3 does not divide 8 devices / sequence=2; try tensor=2"),
        (MeshConfig(tensor=3), 8, "config.mesh.tensor: 3 does not divide 8 devices; try tensor=2"),
        (MeshConfig(fsdp=16), 8, "config.mesh.fsdp: 16 does not divide 8 devices; try fsdp=8"),
        (MeshConfig(fsdp=3, tensor=2), 8,
         "config.mesh.fsdp: 3 does not divide 8 devices / tensor=2; try fsdp=2"),
    ],
)  # fmt: skip
def test_a_mesh_that_does_not_divide_the_devices_is_one_line(mesh, devices, line):
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        mesh_shape(mesh, devices)


def test_any_number_of_rows_is_predicted():
    options, state, batch = small()
    found = sharded(options, MESHES["data x fsdp"]).predict({"params": state.params}, batch)
    few = {name: rows[:5] for name, rows in batch.items()}  # over eight groups of devices
    got = sharded(options, MESHES["data x fsdp"]).predict({"params": state.params}, few)
    np.testing.assert_allclose(got, found[:5], rtol=1e-6)


def test_each_process_reads_the_rows_of_its_groups():
    """Also where the devices of a group belong to two of them."""
    four = [0, 1, 2, 3]
    assert [share_of(8, four, n, tensor=1) for n in four] == [
        slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)
    ]  # fmt: skip
    assert [share_of(8, four, n, tensor=2) for n in four] == [slice(0, 4)] * 2 + [slice(4, 8)] * 2
    assert [share_of(8, four, n, tensor=4) for n in four] == [slice(0, 8)] * 4
    assert [share_of(8, [0, 0, 1, 1], n, tensor=2) for n in (0, 1)] == [slice(0, 4), slice(4, 8)]
    assert share_of(8, [0, 0, 0, 0], 0, tensor=2) is None


@pytest.mark.parametrize("axis", ["x", ("x", "y")], ids=str)
def test_sums_between_processes_round_as_those_within_one(axis, monkeypatch):
    """What gloo is not asked to add: of the same values the same bits, and each device its part."""
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("x", "y"))
    values = np.random.default_rng(0).normal(size=(8, 3, 8)).astype(np.float32)

    def both(part):
        whole = summed({"a": part[0]}, axis)["a"]
        cut = scattered(part[0], axis, 1) if axis == "x" else whole
        return whole[None], cut[None]

    def run():
        spec = P(("x", "y"))
        mapped = jax.shard_map(both, mesh=mesh, in_specs=spec, out_specs=(spec, spec))
        return jax.tree.map(np.asarray, jax.jit(mapped)(values))

    wanted = run()
    monkeypatch.setattr(summing, "current", lambda: Processes(0, 2))
    for one, other in zip(run(), wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_uses_a_model_of_shares_has_all_devices():
    """By the run's mesh where that divides them."""

    def mesh(here, **more):
        made = from_dict({"data": {"source": "sample_text"}, **more})
        chosen, door = using(made, jax.local_devices()[:here])
        return len(chosen), door if door is DataParallel else door.keywords["mesh"]

    over = {"parallel": "sharded", "mesh": {"fsdp": 2, "tensor": 2}}
    assert mesh(8) == (1, DataParallel)
    assert mesh(8, parallel="sharded") == (8, MeshConfig())
    assert mesh(8, **over) == (8, MeshConfig(2, 2))
    assert mesh(8, devices=4, **over) == (4, MeshConfig(2, 2))
    assert mesh(2, **over) == (2, MeshConfig())
    assert mesh(1, **over) == (1, MeshConfig())


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"parallel": "shard"}, "config.parallel: unknown value 'shard'; did you mean 'sharded'?"),
        *[({"mesh": {axis: 2}}, f"config.mesh.{axis}: not read with parallel=pmap; set parallel=s")
          for axis in ("fsdp", "tensor", "sequence")],
        ({"parallel": "sharded", "mesh": {"sequence": 0}}, "config.mesh.sequence: 0"),
        ({"parallel": "sharded", "mesh": {"tensor": 4}},
         "config.mesh.tensor: 4 does not divide model.heads 2; try tensor=2"),
        ({"parallel": "sharded", "mesh": {"tensor": 2}, "model": {"mlp_width": 15}},
         "config.mesh.tensor: 2 does not divide model.mlp_width 15; try tensor=1"),
        ({"parallel": "sharded", "mesh": {"tensr": 2}}, "config.mesh.tensr: unknown key; did you"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(given, line):
    model = {"width": 8, "depth": 2, "heads": 2, **given.pop("model", {})}
    with pytest.raises(UserError) as error:
        from_dict({"data": {"source": "sample_text"}, "model": model, **given})
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_rows_are_spread_over_the_groups_of_a_mesh():
    assert len(choose_devices(8, 4, 1, tensor=2)) == 8
    with pytest.raises(UserError, match=r"6 rows do not divide by 8 devices / tensor=2; try 8"):
        choose_devices(8, 6, 1, tensor=2)
    line = "6 rows do not divide by 8 devices / tensor=2 / sequence=2 x 2 micro-batches; try 8"
    with pytest.raises(UserError, match=f"^config.train.batch_size: {line}$"):
        choose_devices(8, 6, 2, tensor=2, sequence=2)


@pytest.mark.parametrize(
    ("train", "mesh", "line"),
    [
        ({"updates_per_call": 2}, {},
         "config.train.updates_per_call: 2 is for parallel=pmap; set it to 1 with parallel=sharded"),
        ({}, {"fsdp": 3}, "config.mesh.fsdp: 3 does not divide 8 devices; try fsdp=2"),
    ],
)  # fmt: skip
def test_what_this_door_does_not_do_is_one_line_and_nothing_is_written(train, mesh, line, tmp_path):
    model, train = {"width": 8, "depth": 1, "heads": 2}, {"steps": 1, "batch_size": 16, **train}
    made = from_dict({
        "data": {"source": "sample_text"}, "model": model, "train": train,
        "parallel": "sharded", "mesh": mesh,
    })  # fmt: skip
    with pytest.raises(UserError, match=f"^{re.escape(line)}$"):
        run_experiment(made, tmp_path / "run", Console(quiet=True))
    assert list(tmp_path.iterdir()) == []


def test_several_batches_are_not_for_this_door():
    options, _, batch = small()
    with pytest.raises(NotImplementedError, match="several updates a call are for parallel=pmap"):
        sharded(options, MESHES["fsdp"]).put_several([batch, batch])


def compared(made, mesh, count=8):
    """A step of a run in both doors, from parameters drawn by their shapes alone."""
    data, rng = tiny.dataset(), np.random.default_rng(0)
    model = build_model(made, describe(data))
    optimizer, _ = make_optimizer(made.optimizer, 20)
    train = made.train
    options = StepOptions(model.apply, optimizer, 0.0, train.accumulate, train.ema, train.log_every)
    batch = TrainBatches(data.train, 16, (8,), 0).batch_at(0)
    variables = jax.eval_shape(model.init, jax.random.key(0), batch["x"][:1], batch["mask"][:1])
    kept = {name: jax.tree.map(lambda a: np.ones(a.shape, a.dtype), tree)
            for name, tree in variables.items()}  # fmt: skip
    kept["params"] = jax.tree.map(
        lambda a: rng.normal(0.3, 0.3, a.shape).astype(a.dtype), variables["params"]
    )
    state = jax.tree.map(np.array, create_state(kept, optimizer, 0, train.ema))
    devices = jax.local_devices()[:count]
    found, losses = trained(Sharded(options, devices, None, mesh), state, [batch])
    pmap = DataParallel(options, devices[: count // mesh.tensor // mesh.sequence])
    wanted, those = trained(pmap, state, [batch])
    np.testing.assert_allclose(losses, those, rtol=1e-5)
    close((found.params, found.collections), (wanted.params, wanted.collections))


SGD = {"algorithm": "sgd", "learning_rate": 0.1}  # Adam makes a step of the sign of a gradient of 0


@pytest.mark.table
@pytest.mark.parametrize("name", arrangements.names())
def test_arrangements(name):
    model = {"arrangement": name, "dropout": 0.1}
    compared(tiny.config(model=model, optimizer=SGD), MESHES["data x fsdp x tensor"], count=8)


@pytest.mark.table
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize(
    "how",
    [
        {"model": {"norm": "batch"}},
        {"model": {"norm": "power"}},
        {"model": {"depth": 3, "arrangement": "mix_ln", "remat": "full"}},
        {"accumulate": 2, "ema": 0.9, "model": {"dropout": 0.1, "drop_path": 0.2}},
    ],
    ids=str,
)
def test_what_else_a_step_may_have(how, mesh):
    how = {**how, "model": dict(how["model"])}
    compared(tiny.config(optimizer=SGD, **how), MESHES[mesh])


@pytest.mark.table
@pytest.mark.skipif(hasattr(triton, "get_gpu_info"), reason="jax 0.11 lowers for a GPU at hand")
def test_a_step_has_each_devices_norm_kernels():
    """Two layers of two sublayers and the final norm, where no axis is left to XLA."""
    data, made = tiny.dataset(), tiny.config(model={"unroll": 2})  # as "auto" is on a GPU
    _, state, options, _ = tiny.parts(made, data)
    door = sharded(options, MESHES["data x fsdp"])
    state = door.replicate(jax.tree.map(np.array, state))
    batch = TrainBatches(data.train, 16, (8,), 0).batch_at(0)
    batch.pop("lengths")
    traced = door._program(state).trace(state, dict(door.put(batch)))
    assert kernels(traced.lower(lowering_platforms=("cuda",)).as_text()) == [5, 5]


@pytest.mark.table
def test_a_run_goes_on_by_the_other_door(tmp_path):
    """A sharded run of 8 devices, ended by pmap on 2, has the losses of one that was left alone."""
    quiet = Console(quiet=True)
    digits = {"source": "sample_text"}

    def made(steps, **more):
        model = {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
        train = {"steps": steps, "batch_size": 16, "log_every": 1, "checkpoint_every": 2}
        return from_dict({"data": digits, "model": model, "train": train, **more})

    over = {"parallel": "sharded", "mesh": {"fsdp": 4}}
    schedule = {"optimizer": {"schedule": "constant"}}
    run_experiment(made(2, **over, **schedule), tmp_path / "a", quiet)
    report = run_experiment(made(4, devices=2, **schedule), tmp_path / "a", quiet)
    run_experiment(made(4, devices=1, **schedule), tmp_path / "b", quiet)
    losses = [
        [row["loss"] for row in MetricsLog(tmp_path / name / "metrics.jsonl").rows()]
        for name in ("a", "b")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert {c["what"] for c in report["changes"]} >= {"parallel", "devices"}


@pytest.mark.table
@pytest.mark.parametrize("mesh", SEQUENCES)
@pytest.mark.parametrize(
    "model",
    [
        {"attention": "xla"},
        {"attention": "chunked", "depth": 3, "arrangement": "mix_ln"},
        {"attention": "xla", "relative": "bias", "window": "3", "remat": "full"},
        {"attention": "chunked", "arrangement": "hyper_connections", "positions": "rotary"},
    ],
    ids=str,
)
def test_positions_shared_out(model, mesh):
    compared(tiny.config(model={"dropout": 0.0, **model}, optimizer=SGD), SEQUENCES[mesh])


def test_positions_that_do_not_divide_are_padded():
    options, _, batch = small()
    odd = {**batch, "x": batch["x"][:, :3], "mask": batch["mask"][:, :3]}
    rows = sharded(options, SEQUENCES["fsdp x tensor x sequence"]).put(odd)
    assert rows["x"].shape == (16, 4, 8)
    assert not np.asarray(rows["mask"])[:, 3].any()
    assert {s.data.shape for s in rows["x"].addressable_shards} == {(8, 2, 8)}
    assert {s.data.shape for s in rows["y"].addressable_shards} == {(8,)}


@pytest.mark.table
@pytest.mark.parametrize(("attention", "most"), [("xla", 0.4), ("chunked", 0.8)])
def test_a_device_has_the_activations_of_its_positions(attention, most):
    """Four devices with a share of the positions each; in chunks there is less to share out."""
    size = Size(depth=2, width=32, heads=4, mlp_width=64, batch=2, length=512)
    batch, model = random_batch(size), our_model(size, attention=attention)
    options = StepOptions(model.apply, optax.sgd(0.1))
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch["x"][:1], batch["mask"][:1])
    state = jax.eval_shape(lambda: create_state(
        jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes), options.optimizer, 0, None
    ))  # fmt: skip

    def temporaries(devices, mesh):
        door = Sharded(options, jax.local_devices()[:devices], None, mesh)
        laid = jax.tree.map(
            lambda a, how: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=how),
            state, door.shardings(state),
        )  # fmt: skip
        return compiled(door, laid, batch).memory_analysis().temp_size_in_bytes

    whole = temporaries(1, MeshConfig())
    assert temporaries(4, MeshConfig(fsdp=1, sequence=4)) < most * whole


@pytest.mark.parametrize("more", [{}, {"activation": "geglu", "kv_heads": 2}], ids=str)
def test_a_layer_sums_its_rows_over_tensor_twice_forward_and_twice_backward(more):
    """However many projections read the same rows: what comes of all is added up first."""
    size = Size(depth=2, width=32, heads=4, mlp_width=64, batch=8, length=16)
    batch, model = random_batch(size), our_model(size, attention="xla", **more)
    options = StepOptions(model.apply, optax.sgd(0.1))
    variables = model.init(jax.random.key(0), batch["x"][:1], batch["mask"][:1])
    state = jax.tree.map(np.array, create_state(variables, options.optimizer, 0, None))
    mesh = MeshConfig(fsdp=2, tensor=2)
    door = Sharded(options, jax.local_devices()[:4], None, mesh)
    program = compiled(door, door.replicate(state), batch)
    rows = 4 * size.batch // door.shares * size.length * size.width
    sums = [c for c in scaling.collectives(program.as_text(), 4) if c.kind == "all-reduce"]
    assert [c.size for c in sums if c.times == size.depth] == [rows] * 4
    found, _ = trained(door, state, [batch])
    wanted, _ = trained(DataParallel(options, jax.local_devices()[:2]), state, [batch])
    close(found.params, wanted.params)


def test_images_have_no_positions_to_share_out():
    made = from_dict({
        "data": {"source": "sample_text"}, "parallel": "sharded", "mesh": {"sequence": 2}
    })  # fmt: skip
    check_mesh(made, {"kind": "tokens"})
    with pytest.raises(UserError, match=r"^config\.mesh\.sequence: 2 devices would share out"):
        check_mesh(made, {"kind": "images"})


@pytest.mark.table
@pytest.mark.parametrize("name", ["fsdp", "data x fsdp x tensor"])
def test_a_model_that_one_device_does_not_hold_predicts(name):
    """The program's arguments and temporaries on a device are less than the parameters."""
    size = Size(depth=8, width=64, heads=4, mlp_width=256, batch=8, length=8)
    batch, model = random_batch(size), our_model(size)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch["x"][:1], batch["mask"][:1])
    door = sharded(StepOptions(model.apply, optax.sgd(0.1)), MESHES[name])
    laid = jax.tree.map(
        lambda a, how: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=how),
        shapes, door.shardings(shapes),
    )  # fmt: skip
    rows = dict(door.put({"x": batch["x"], "mask": batch["mask"]}))
    memory = door._predicting(laid).lower(laid, rows).compile().memory_analysis()
    whole = sum(leaf.size * 4 for leaf in jax.tree.leaves(shapes))
    assert memory.argument_size_in_bytes + memory.temp_size_in_bytes < whole / 2


@pytest.mark.table
def test_a_run_of_shares_is_used_in_shares(tmp_path):
    """Commands predict over all devices what training scored, and what one device predicts."""
    model = {"width": 16, "depth": 1, "heads": 2}
    made = {"data": {"source": "sample_text"}, "model": model,
            "train": {"steps": 2, "batch_size": 16, "select": "best", "validation": 0.25}}  # fmt: skip
    over = {"parallel": "sharded", "mesh": {"fsdp": 4, "tensor": 2}}
    report = run_experiment(from_dict({**made, **over}), tmp_path / "a", Console(quiet=True))
    trained = load_trained(tmp_path / "a")
    assert dict(trained.parallel.mesh.shape) == {"data": 1, "fsdp": 4, "tensor": 2, "sequence": 1}
    test = trained.dataset().test
    found = trained.log_probs(test)
    score = trained.task.score(found, test.y, trained.classes, trained.thresholds)
    assert score["accuracy"] == report["seeds"][0]["accuracy"]
    np.testing.assert_allclose(score["log_loss"], report["seeds"][0]["log_loss"], rtol=1e-5)
    trained.parallel = DataParallel(trained.parallel.options, jax.local_devices()[:1])
    np.testing.assert_allclose(trained.log_probs(test), found, atol=1e-5)
