"""Checkpoints: whole or not there; damage is found, told and stepped over."""

import numpy as np
import pytest

from resnorm_jax.training.checkpoint import CheckpointStore, DamagedCheckpointError, params_sha256


def tree(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(3, 4)).astype(np.float32), "b": {"c": np.int32(seed), "d": None}}


@pytest.fixture
def store(tmp_path):
    lines: list[str] = []
    made = CheckpointStore(tmp_path / "last", keep=2, warn=lines.append)
    made.lines = lines
    return made


def array_file(store, step):
    files = [p for p in store._path(step).rglob("*") if p.is_file() and p.parent.name == "d"]
    return max(files, key=lambda p: p.stat().st_size)


def test_round_trip_is_exact_and_old_ones_go(store):
    for step in (1, 2, 3):
        store.save(step, tree(step), {"seconds": step})
    assert store.steps() == [2, 3]
    step, found = store.restore_latest(tree())
    assert step == 3
    assert store.note(3) == {"seconds": 3}
    np.testing.assert_array_equal(found["a"], tree(3)["a"])
    assert found["b"]["c"] == 3
    assert found["b"]["d"] is None


def test_saving_a_step_again_changes_nothing(store):
    store.save(1, tree(1), {})
    store.save(1, tree(2), {})
    np.testing.assert_array_equal(store.restore(1, tree())["a"], tree(1)["a"])


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest"])
def test_damage_falls_back_to_the_older_one_loudly(store, damage):
    store.save(1, tree(1), {})
    store.save(2, tree(2), {})
    path = array_file(store, 2)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "truncate":
        path.write_bytes(data[:-1])
    elif damage == "delete":
        path.unlink()
    else:
        (store._path(2) / "manifest.json").write_text("{")
    with pytest.raises(DamagedCheckpointError):
        store.restore(2, tree())
    step, found = store.restore_latest(tree())
    assert step == 1
    np.testing.assert_array_equal(found["a"], tree(1)["a"])
    assert len(store.lines) == 1
    assert "set aside" in store.lines[0]


def test_what_is_not_a_finished_checkpoint_is_not_one(store):
    assert store.restore_latest(tree()) is None
    store.save(1, tree(1), {})
    (store.directory / "step_000000009.partial").mkdir()
    (store.directory / "9").mkdir()
    (store.directory / "step_000000007.damaged").mkdir()
    assert store.steps() == [1]


def test_hash_depends_on_every_bit_and_not_on_the_order():
    first = params_sha256({"a": np.zeros(2, np.float32), "b": np.ones(2, np.float32)})
    assert first == params_sha256({"b": np.ones(2, np.float32), "a": np.zeros(2, np.float32)})
    assert first != params_sha256({"a": np.ones(2, np.float32), "b": np.zeros(2, np.float32)})
    assert first != params_sha256({"a": -np.zeros(2, np.float32), "b": np.ones(2, np.float32)})
    assert first != params_sha256({"a": np.zeros((2, 1), np.float32), "b": np.ones(2, np.float32)})
