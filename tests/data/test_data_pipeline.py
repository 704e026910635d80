"""Batches: coverage, determinism, shapes, resuming."""

import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnorm_jax.data import Examples, TrainBatches, eval_batches, iterate, length_buckets


def examples(lengths, kind="features", width=None):
    """Rows whose every valid value is the row's index + 1."""
    lengths = np.array(lengths, np.int32)
    width = width or int(lengths.max())
    mark = np.arange(1, len(lengths) + 1)[:, None]
    x = np.where(np.arange(width) < lengths[:, None], mark, 0)
    y = (np.arange(len(lengths)) % 3).astype(np.int32)
    if kind == "tokens":
        return Examples(x.astype(np.uint16), lengths, y)
    return Examples(np.repeat(x[..., None], 2, axis=2).astype(np.float32), lengths, y)


def ids(batch):
    """The index of each row, read back from its values."""
    return batch["x"].reshape(len(batch["y"]), -1)[:, 0].astype(int) - 1


def check_batch(batch, source):
    """Every field of a batch against the rows it says it holds, one row at a time."""
    assert batch["x"].dtype in (np.int32, np.float32)
    assert batch["mask"].dtype == bool
    assert batch["lengths"].dtype == np.int32
    np.testing.assert_array_equal(batch["lengths"], batch["mask"].sum(1))
    assert batch["y"].dtype == np.int32
    assert batch["weight"].dtype == np.float32
    for i, row in enumerate(ids(batch)):
        length = source.lengths[row]
        assert batch["mask"][i].tolist() == [j < length for j in range(batch["x"].shape[1])]
        np.testing.assert_array_equal(batch["x"][i, :length], source.x[row, :length])
        assert not batch["x"][i, length:].any()
        assert batch["y"][i] == source.y[row]


def same(one, two):
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key])


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 9), st.integers(1, 4), st.integers(0, 3), st.booleans())
@settings(max_examples=100, deadline=None)
def test_each_row_once_an_epoch(lengths, size, count, seed, tokens):
    source = examples(lengths, "tokens" if tokens else "features")
    edges = length_buckets(source.lengths, count)
    batches = TrainBatches(source, size, edges, seed)
    for epoch in (0, 1, 5):
        seen, fillers = Counter(), 0
        for step in range(batches.steps_per_epoch):
            batch = batches.batch_at(epoch * batches.steps_per_epoch + step)
            check_batch(batch, source)
            assert len(batch["y"]) == size
            assert batch["x"].shape[1] in edges
            assert set(batch["weight"]) <= {0, 1}
            real = ids(batch)[batch["weight"] == 1]
            seen.update(real)
            fillers += size - len(real)
            assert set(ids(batch)) == set(real)
        assert seen == Counter(range(len(lengths)))
        assert fillers < size


@given(LENGTHS, st.integers(1, 9), st.integers(1, 4), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_evaluation_covers_each_row_once(lengths, size, count, longest):
    source = examples(lengths)
    edges = length_buckets(np.array([longest]), count)  # of other rows, as in prediction
    batches = eval_batches(source, size, edges)
    found = np.full(len(lengths), -1)
    for batch in batches:
        check_batch(batch, source)
        assert batch["x"].shape[1] in {*edges, max(lengths)}
        keep = batch["rows"] >= 0
        np.testing.assert_array_equal(keep, batch["weight"] == 1)
        np.testing.assert_array_equal(ids(batch)[keep], batch["rows"][keep])
        assert (found[batch["rows"][keep]] == -1).all()
        found[batch["rows"][keep]] = ids(batch)[keep]
    np.testing.assert_array_equal(found, np.arange(len(lengths)))
    assert len(batches) == sum(1 for _ in batches)


def test_training_batches_are_full_except_the_last_leftover():
    source = examples(np.random.default_rng(0).integers(1, 30, size=203))
    batches = TrainBatches(source, 16, length_buckets(source.lengths, 4), 0)
    assert batches.steps_per_epoch == 13  # ceil(203 / 16)
    epoch = [batches.batch_at(step) for step in range(13)]
    assert sorted(batch["weight"].sum() for batch in epoch) == [11.0] + [16.0] * 12
    shapes = [
        sorted(batches.batch_at(13 * e + s)["x"].shape[1] for s in range(13)) for e in (0, 1, 7)
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    assert len(set(shapes[0])) == 4


def test_a_batch_depends_on_seed_and_step_only():
    source = examples(np.random.default_rng(0).integers(1, 30, size=100))
    one, two, other = (TrainBatches(source, 8, (8, 16, 30), seed) for seed in (3, 3, 4))
    steps = np.random.default_rng(1).permutation(60)
    ahead = {int(step): one.batch_at(step) for step in steps}
    for step in range(60):
        same(two.batch_at(step), ahead[step])
    n = one.steps_per_epoch

    def order(batches, first):
        return np.concatenate([ids(batches.batch_at(s)) for s in range(first, first + n)])

    assert (order(one, 0) != order(other, 0)).any()
    assert (order(one, 0) != order(one, n)).any()
    assert len(one._plans) <= 2  # old epochs are forgotten
    firsts = {one.batch_at(epoch * n)["x"].shape[1] for epoch in range(20)}
    assert len(firsts) > 1  # the order of batches is shuffled, not short to long


def test_the_batches_of_seed_0_never_change():
    source = examples(np.arange(1, 21), "tokens")
    batches = TrainBatches(source, 4, (8, 20), 0)
    assert [ids(batches.batch_at(step)).tolist() for step in range(3)] == GOLDEN


GOLDEN = [[19, 13, 16, 11], [17, 14, 9, 15], [10, 8, 12, 18]]


def test_iterate_resumes_at_any_step():
    source = examples(np.random.default_rng(0).integers(1, 30, size=50))
    make = lambda: TrainBatches(source, 8, (16, 30), 5)  # noqa: E731
    whole = list(iterate(make(), 0, 40))
    assert [step for step, _ in whole] == list(range(40))
    assert all(type(step) is int for step, _ in whole)
    for start, stop in ((0, 1), (7, 40), (39, 40), (13, 20)):
        part = list(iterate(make(), start, stop))
        assert [step for step, _ in part] == list(range(start, stop))
        for step, batch in part:
            same(batch, whole[step][1])
            same(batch, make().batch_at(step))
    assert list(iterate(make(), 5, 5)) == []
    assert next(iterate(make(), 5, 10**9))[0] == 5


def test_threads_get_the_same_batches():
    source = examples(np.random.default_rng(0).integers(1, 30, size=64))
    batches, quiet = TrainBatches(source, 8, (30,), 0), TrainBatches(source, 8, (30,), 0)
    wrong = []

    def work(seed):
        for step in np.random.default_rng(seed).integers(0, 80, size=60):
            with_threads, alone = batches.batch_at(step), expected[int(step)]
            if (with_threads["x"] != alone["x"]).any():
                wrong.append(step)

    expected = {step: quiet.batch_at(step) for step in range(80)}
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_images_have_one_shape_and_no_mask():
    x = np.arange(5 * 4 * 6, dtype=np.float32).reshape(5, 4, 6, 1)
    source = Examples(x, np.full(5, 4, np.int32), np.arange(5, dtype=np.int32))
    batches = TrainBatches(source, 2, (99,), 0)
    assert batches.steps_per_epoch == 3
    batch = batches.batch_at(0)
    assert batch.keys() == {"x", "y", "weight"}
    assert batch["x"].shape == (2, 4, 6, 1)
    np.testing.assert_array_equal(batch["x"], x[batch["y"]])
    last = eval_batches(source, 2, ())[-1]
    assert last["rows"].tolist() == [4, -1]
    np.testing.assert_array_equal(last["x"], x[[4, 4]])
    assert [len(part["y"]) for part in eval_batches(source, 2, ())[:2]] == [2, 2]


def test_rows_narrower_or_wider_than_the_buckets():
    source = examples([2, 3, 9], width=9)
    shapes = {batch["x"].shape[1] for batch in eval_batches(source, 2, (4, 6))}
    assert shapes == {4, 9}
    narrow = examples([2, 3], width=3)
    (batch,) = eval_batches(narrow, 2, (8, 12))
    assert batch["x"].shape == (2, 8, 2)
    check_batch(batch, narrow)


def test_empty_input_is_refused():
    empty = examples([3]).take(np.zeros(0, int))
    with pytest.raises(ValueError, match="need rows"):
        TrainBatches(empty, 4, (4,), 0)
    with pytest.raises(ValueError, match="need rows"):
        eval_batches(empty, 4, (4,))


def test_evaluation_has_no_more_batches_than_rows_need():
    """What a length leaves over goes with longer rows: few batches, of few programs."""
    source = examples([2, 30, 3, 9, 10, 17, 18, 4])
    batches = eval_batches(source, 4, (4, 12, 20, 30))
    assert [batch["rows"].tolist() for batch in batches] == [[0, 2, 7, 3], [4, 5, 6, 1]]
    assert [batch["x"].shape[1] for batch in batches] == [12, 30]
    assert eval_batches(examples([2, 3, 7]), 4, (4, 12, 20, 30))[0]["x"].shape[1] == 12
