"""Padded lengths: no other choice of as many has fewer positions in an epoch."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnorm_jax.data import Examples, TrainBatches, length_buckets
from resnorm_jax.data.buckets import epoch_positions, quantile_buckets

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


def positions(lengths, edges, size):
    """Positions of an epoch, counted batch by batch."""
    lengths = np.array(lengths, np.int32)
    x = np.zeros((len(lengths), lengths.max(), 1), np.float32)
    batches = TrainBatches(Examples(x, lengths, np.zeros(len(lengths), np.int32)), size, edges, 0)
    return sum(batches.batch_at(step)["x"][..., 0].size for step in range(batches.steps_per_epoch))


@given(LENGTHS, st.integers(1, 4), st.integers(1, 9), st.sampled_from([0, 10, 50]))
@settings(max_examples=60, deadline=None)
def test_no_other_choice_costs_less(lengths, count, size, program):
    found = length_buckets(np.array(lengths), count, size, program)
    longest = max(lengths)
    assert list(found) == sorted(set(found))
    assert len(found) <= count
    assert found[-1] == longest
    assert all(edge % 4 == 0 for edge in found[:-1])
    cost = positions(lengths, found, size) + program * len(found)
    for number in range(count):
        for inside in itertools.combinations(range(4, longest, 4), number):
            other = (*inside, longest)
            least = epoch_positions(np.array(lengths), np.array(other), size)
            assert cost <= least + program * len(other), other


@given(LENGTHS, st.integers(1, 6), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_positions_are_those_of_the_batches(lengths, count, size):
    edges = length_buckets(np.array(lengths), count, size)
    found = epoch_positions(np.array(lengths), np.array(edges), size)
    assert found == positions(lengths, edges, size)


def test_length_buckets_by_hand():
    lengths = np.arange(1, 101)
    assert length_buckets(lengths, 1) == (100,)
    assert length_buckets(lengths, 2) in ((48, 100), (52, 100))
    assert length_buckets(np.full(9, 7), 4) == (7,)
    assert length_buckets(np.array([5, 5, 26]), 3) == (8, 26)
    assert length_buckets(np.array([5, 5, 26]), 3, program=37) == (26,)  # 36 are saved
    assert length_buckets(np.array([5, 5, 26]), 3, batch_size=3) == (26,)  # one batch
    with pytest.raises(ValueError, match="count >= 1"):
        length_buckets(lengths, 0)


def test_few_long_rows_do_not_pad_the_others():
    """A twentieth of the rows is ten times as long; quantiles pad a third of the others to them."""
    lengths = np.array([30, 34, 38] * 19 + [300, 340, 380])
    assert length_buckets(lengths, 2) == (40, 380)
    share = [
        1 - lengths.sum() / epoch_positions(lengths, np.array(edges), 1)
        for edges in (length_buckets(lengths, 2), quantile_buckets(lengths, 2))
    ]
    assert share[0] < 0.2 < 0.6 < share[1]


def test_very_long_rows_are_chosen_for_in_a_moment():
    lengths = np.random.default_rng(0).integers(1, 10**6, 10**5)
    edges = length_buckets(lengths, 8, 32)
    assert len(edges) == 8
    assert all(edge % 980 == 0 for edge in edges[:-1])
    quantiles = np.array(quantile_buckets(lengths, 8))
    assert epoch_positions(lengths, np.array(edges), 32) < epoch_positions(lengths, quantiles, 32)


def test_the_edges_of_runs_before_are_still_known():
    lengths = np.arange(1, 101)
    assert quantile_buckets(lengths, 1) == (100,)
    assert quantile_buckets(lengths, 4) == (28, 52, 76, 100)
    assert quantile_buckets(np.full(9, 7), 4) == (7,)
    assert quantile_buckets(np.array([5, 5, 26]), 3) == (8, 26)
