"""Arrays of a number a row, in blocks and in files, are those that NumPy makes in memory at once."""

import mmap

import numpy as np
import pytest

from resnorm_jax.data import Examples, TrainBatches, row_arrays
from resnorm_jax.data.ragged import Ragged
from resnorm_jax.data.row_arrays import Store
from resnorm_jax.data.splits import held_counts, stratified_split
from resnorm_jax.reporting.calibration import calibration
from resnorm_jax.reporting.metrics import log_loss, score

SIZES = (0, 1, 6, 7, 8, 50)
same = np.testing.assert_array_equal


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(row_arrays, "BLOCK", 7)
    monkeypatch.setattr(row_arrays, "SMALL", 0)


def random(*seed):
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


@pytest.mark.parametrize("size", SIZES)
def test_counts_and_indices_are_those_of_numpy(size, small_blocks):
    values = random(size).integers(0, 9, size).astype(np.int32)
    same(row_arrays.counts(values, 12), np.bincount(values, minlength=12))
    same(row_arrays.counts(values), np.bincount(values))
    for one, two in zip(
        row_arrays.distinct(values), np.unique(values, return_counts=True), strict=True
    ):
        same(one, two)
    same(row_arrays.where(values > 4), np.flatnonzero(values > 4))
    same(np.concatenate(list(row_arrays.indices(size))), np.arange(size))
    same(row_arrays.shuffled(size, random(3)), random(3).permutation(size))
    assert row_arrays.shuffled(size, random(3)).dtype == np.int32


@pytest.mark.parametrize("shape", [(50,), (50, 3), (0, 3)])
def test_an_array_in_a_file_is_that_in_memory(shape, small_blocks, tmp_path):
    values = random(1).integers(0, 99, shape)
    made = [
        store.keep(lambda: row_arrays.parts_of(values), values.size, np.int32)
        for store in (Store(), Store(tmp_path))
    ]
    for array in made:
        assert array.dtype == np.int32
        same(array, values)
    assert not list(tmp_path.iterdir()), "the file has no name: it is gone with the process"
    if values.size:
        assert not made[1].flags.writeable
        row_arrays.forget(made[1][3:])  # of a view too
        same(made[1], values)


def test_a_small_array_needs_no_file(caplog, tmp_path):
    array = Store(tmp_path / "none").keep(lambda: [np.arange(9)], 9, np.int32)
    same(array, np.arange(9))
    assert not caplog.text, "nothing was written, so that nothing went wrong"


def test_without_a_folder_that_can_be_written_arrays_stay_in_memory(small_blocks, caplog, tmp_path):
    values = np.arange(20)
    found = Store(tmp_path / "none").keep(lambda: row_arrays.parts_of(values), 20, np.int64)
    same(found, values)
    assert "going on in memory" in caplog.text


def test_a_full_disk_leaves_the_array_in_memory(small_blocks, caplog, tmp_path):
    """The parts are asked for again: those that were written are in it once."""
    turns = []

    def parts():
        turns.append(1)
        yield np.arange(3)
        if len(turns) == 1:
            raise OSError(28, "No space left on device")
        yield np.arange(3, 6)

    same(Store(tmp_path).keep(parts, 6, np.int64), np.arange(6))
    assert "No space left" in caplog.text


def test_pages_of_a_file_are_let_go(small_blocks, tmp_path, monkeypatch):
    told = []

    class Pages(mmap.mmap):
        def madvise(self, *given):
            told.append(given)
            return super().madvise(*given)

    monkeypatch.setattr(row_arrays.mmap, "mmap", Pages)
    array = Store(tmp_path).keep(lambda: [np.arange(20)], 20, np.int64)
    same(np.concatenate(list(row_arrays.parts_of(array))), np.arange(20))
    assert told == [(mmap.MADV_DONTNEED,)]


@pytest.mark.parametrize("seed", range(5))
def test_a_split_is_that_of_whole_arrays(seed, small_blocks):
    y = random(seed).integers(0, 4, 60).astype(np.int32)
    rng = random(seed)
    chosen = [
        rng.permutation(np.flatnonzero(y == label))[:count]
        for label, count in enumerate(held_counts(np.bincount(y), 0.3))
    ]
    kept, held = stratified_split(y, 0.3, seed, "data.test_fraction")
    same(held, np.sort(np.concatenate(chosen)))
    same(kept, np.setdiff1d(np.arange(60), held))


def ragged(rows, store):
    lengths = random(rows).integers(1, 9, rows).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(1, offsets[-1] + 1)
    x = Ragged(ids, offsets, np.arange(rows), 9, store)
    return Examples(x, lengths, (np.arange(rows) % 3).astype(np.int32))


def whole_plan(examples, edges, size, seed, epoch):
    """The batches of an epoch, each a list of rows, with all rows at once."""
    rng = random(seed, epoch)
    order = rng.permutation(len(examples))
    bucket = np.searchsorted(edges, examples.lengths[order])
    rows = np.concatenate([order[bucket == i] for i in range(len(edges))])
    batches = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def test_the_order_of_training_is_that_of_whole_arrays(small_blocks, tmp_path):
    rows = ragged(100, Store(tmp_path))
    some = rows.take(np.arange(3, 97))
    assert isinstance(some.lengths.base, mmap.mmap)
    batches = TrainBatches(some, 8, (4, 9), 5)
    for epoch in range(2):
        for step, taken in enumerate(whole_plan(some, (4, 9), 8, 5, epoch)):
            at = epoch * batches.steps_per_epoch + step
            same(batches.rows_at(at)[: len(taken)], taken)
            batch = batches.batch_at(at)
            same(batch["x"][: len(taken), 0], rows.x.offsets[taken + 3] + 1)
            same(batch["y"][: len(taken)], (taken + 3) % 3)


def test_scores_do_not_depend_on_the_blocks(monkeypatch):
    rng, names = random(2), ("a", "b", "c")
    z = rng.normal(size=(500, 3))
    log_probs = (z - np.log(np.exp(z).sum(1, keepdims=True))).astype(np.float32)
    y = np.where(rng.random(500) < 0.5, log_probs.argmax(1), rng.integers(0, 3, 500))
    found = score(log_probs, y, names), calibration(log_probs, y)
    monkeypatch.setattr(row_arrays, "BLOCK", 7)
    assert found == (score(log_probs, y, names), calibration(log_probs, y))
    chosen = log_probs.astype(np.float64)[np.arange(500), y]
    assert log_loss(log_probs, y) == -chosen.mean()
