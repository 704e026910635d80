"""Which checkpoints stay, what a failed save says, and that the best one is the best."""

import errno
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import tiny

from resnorm_jax.errors import UserError
from resnorm_jax.training.checkpoint import CheckpointStore, DamagedCheckpointError
from resnorm_jax.training.saving import BackgroundStore, Saver, Stores, merit


def tree(seed=0):
    return {"a": np.full(3, seed, np.float32)}


def note(accuracy, loss=1.0):
    return {"accuracy": accuracy, "loss": loss}


def test_the_newest_stay_and_multiples_for_good(tmp_path):
    store = CheckpointStore(tmp_path, keep=2, every=4)
    for step in range(1, 12):
        store.save(step, tree(), {})
    assert store.steps() == [4, 8, 10, 11]


def test_the_best_stay_and_of_equal_ones_the_earlier(tmp_path):
    store = CheckpointStore(tmp_path, keep=2, rank=merit)
    for step, accuracy in enumerate([0.5, 0.9, 0.7, 0.9, 0.1], start=1):
        store.save(step, tree(), note(accuracy))
    assert store.ranked() == [4, 2]
    assert merit(note(0.5, 0.1)) > merit(note(0.5, 0.2)) > merit(note(0.4, 0.0))


def test_a_save_in_the_background_has_the_values_of_its_moment(tmp_path):
    values = tree(1)
    with Saver() as saver:
        store = BackgroundStore(saver, tmp_path)
        store.save(1, values, {})
        values["a"][:] = 2  # as a donated buffer is written into
        assert store.steps() == [1]  # whatever looks waits
    np.testing.assert_array_equal(store.restore(1, tree())["a"], tree(1)["a"])


def test_a_failed_save_in_the_background_is_told_by_the_next_call(tmp_path, monkeypatch):
    CheckpointStore(tmp_path).save(1, tree(), {})

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with Saver() as saver:
        store = BackgroundStore(saver, tmp_path)
        store.save(2, tree(), {})
        with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
            store.save(3, tree(), {})
    with pytest.raises(UserError, match="No space left"), Saver() as saver:
        BackgroundStore(saver, tmp_path).save(2, tree(), {})
    assert store.steps() == [1]
    store.check(1)


def test_a_state_that_does_not_fit_on_the_disk_is_not_begun(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")(2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    store = CheckpointStore(tmp_path)
    with pytest.raises(UserError, match=r"No space left on device: 1\.0 MiB needed, 1\.0 free"):
        store.save(1, tree(), {})
    assert store.steps() == []


def test_what_a_signal_saved_between_two_periods_goes_and_moves_no_other(tmp_path):
    store = CheckpointStore(tmp_path, keep=2, period=10)
    for step, there in [(10, [10]), (20, [10, 20]), (23, [20, 23]), (30, [20, 30]), (31, [30, 31])]:
        store.save(step, tree(), {})
        assert store.steps() == there
    store.drop_after(30)
    assert store.steps() == [30]


def test_a_ranked_checkpoint_of_a_step_that_is_done_again_is_replaced(tmp_path):
    """After a rollback the same step has another batch."""
    store = CheckpointStore(tmp_path, keep=1, rank=merit)
    store.save(4, tree(1), note(0.5))
    store.save(4, tree(2), note(0.6))
    assert store.note(4) == note(0.6)
    np.testing.assert_array_equal(store.restore(4, tree())["a"], tree(2)["a"])
    assert [p.name for p in tmp_path.iterdir()] == ["step_000000004"]


@pytest.fixture
def stores(tmp_path):
    made = Stores.of(tmp_path, 0, tiny.config(select="best").train, print)
    made.best.save(4, tree(), note(0.5))
    return made


def test_a_sound_best_checkpoint_is_taken(stores):
    stores.check_best(6, {"best": [4]})
    stores.check_best(6, {})  # of a version that did not note it
    stores.best.save(8, tree(), note(0.9))  # then killed: step 8 is done again
    stores.check_best(6, {"best": [4]})
    stores.check_best(8, {"best": [4], "validate": True})  # stopped while step 8 was validated
    with pytest.raises(UserError, match="step 4, is gone"):
        stores.check_best(8, {"best": [4, 8]})


def test_the_last_parameters_never_stand_for_the_best_ones(stores):
    path = stores.best.directory / "step_000000004"
    (path / "state" / "_METADATA").write_text("{}")
    with pytest.raises(UserError, match=r"step_000000004: state/_METADATA .* promises to score it"):
        stores.check_best(6, {"best": [4]})
    shutil.rmtree(path)
    with pytest.raises(UserError, match=r"the best checkpoint, of step 4, is gone"):
        stores.check_best(6, {"best": [4]})


def test_every_flipped_bit_of_a_manifest_is_found_or_changes_nothing(stores):
    path = stores.best.directory / "step_000000004" / "manifest.json"
    data, want = path.read_bytes(), stores.best.note(4)
    for bit in range(0, 8 * len(data), 13):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        try:
            stores.best.check(4)
            assert stores.best.note(4) == want
        except DamagedCheckpointError:
            pass


def test_a_state_of_another_format_is_refused(stores, monkeypatch):
    monkeypatch.setattr("resnorm_jax.training.checkpoint.FORMAT", 2)
    with pytest.raises(UserError, match=r"the state is of format 1, this version .* reads 2"):
        stores.best.check(4)


def test_a_checkpoint_without_its_own_digest_is_read(stores):
    """As version 0.2 wrote it."""
    path = stores.best.directory / "step_000000004" / "manifest.json"
    import json

    old = {k: v for k, v in json.loads(path.read_text()).items() if k in ("step", "note", "files")}
    path.write_text(json.dumps(old))
    stores.best.check(4)
    assert stores.best.note(4) == note(0.5)


def test_links_in_a_checkpoint_are_damage(stores, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("{}")
    target = stores.best.directory / "step_000000004" / "state" / "_METADATA"
    data = target.read_bytes()
    outside.write_bytes(data)
    target.unlink()
    target.symlink_to(outside)
    with pytest.raises(DamagedCheckpointError, match="_METADATA is not what was saved"):
        stores.best.check(4)
