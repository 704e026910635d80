"""Attention roll-out and what pooling reads, against loops in float64."""

import numpy as np
import pytest

from resnorm_jax.lab.explain.rollout import POOLED, pooled_weights, roll_out, spread
from resnorm_jax.modules.pooling import POOLING

HEADS, LENGTH, LAYERS = 3, 5, 4


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_hand(weights):
    """Paths counted one layer at a time: what position t holds after layer l."""
    length = weights[0].shape[-1]
    held = [[float(t == s) for s in range(length)] for t in range(length)]
    for layer in weights:
        new = []
        for t in range(length):
            row = [0.0] * length
            total = 0.0
            for u in range(length):
                share = sum(layer[h][t][u] for h in range(len(layer))) / len(layer) / 2
                share += 0.5 * (t == u)
                total += share
                for s in range(length):
                    row[s] += share * held[u][s]
            new.append([value / total for value in row])
        held = new
    return np.array(held)


@pytest.fixture
def weights():
    rng = np.random.default_rng(2)
    return softmax(2 * rng.normal(size=(LAYERS, HEADS, LENGTH, LENGTH)))


def test_roll_out_is_the_product_of_half_attention_half_identity(weights):
    rolled = roll_out(weights)
    np.testing.assert_allclose(rolled, by_hand(weights), rtol=1e-12)
    np.testing.assert_allclose(rolled.sum(1), 1, rtol=1e-12)
    assert np.abs(rolled - by_hand(weights[::-1])).max() > 1e-3  # the order of layers matters


@pytest.mark.parametrize("valid", [[1, 1, 1, 0, 0], [0, 1, 0, 1, 1]])
def test_padding_is_as_if_it_were_not_there(valid):
    valid = np.array(valid, bool)
    rng = np.random.default_rng(4)
    scores = rng.normal(size=(LAYERS, HEADS, LENGTH, LENGTH))
    masked = softmax(np.where(valid, scores, -1e30))  # padded keys get nothing, padded queries look
    short = masked[..., valid, :][..., valid]
    rolled = roll_out(masked, valid)
    np.testing.assert_allclose(rolled[np.ix_(valid, valid)], by_hand(short), rtol=1e-12)
    assert not rolled[~valid].any()
    assert not rolled[:, ~valid].any()
    # Weights of a padded key, should there be any, are left out and the rest scaled.
    leaky = softmax(scores)
    np.testing.assert_allclose(roll_out(leaky, valid)[valid].sum(1), 1, rtol=1e-12)


def test_without_attention_each_position_keeps_its_own():
    np.testing.assert_array_equal(roll_out([], [True, False]), [[1, 0], [0, 0]])


def test_every_pooling_has_a_rule():
    assert set(POOLED) == set(POOLING.names())


@pytest.mark.parametrize("pooling", ["mean", "cls", "patches", "last"])
def test_linear_poolings_are_their_weights(pooling):
    h = np.random.default_rng(0).normal(size=(LENGTH, 7))
    valid = np.array([1, 1, 1, 0, 0], bool)
    expected = POOLING.get(pooling).function(h[None].astype(np.float32), valid[None])[0]
    np.testing.assert_allclose(pooled_weights(pooling, h, valid) @ h, expected, rtol=1e-5)


def test_max_counts_the_features_that_a_position_wins():
    h = np.array([[9.0, 0, 1], [1, 5, 2], [0, 1, 3], [99, 99, 99]])
    valid = np.array([1, 1, 1, 0], bool)
    np.testing.assert_allclose(pooled_weights("max", h, valid), [1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(pooled_weights("max", h), [0, 0, 0, 1])


def test_statistics_split_the_variance():
    rng = np.random.default_rng(1)
    h, valid = rng.normal(size=(LENGTH, 3)), np.array([1, 0, 1, 1, 0], bool)
    h[:, 2] = 4.0  # a feature without variance is shared evenly
    expected = np.zeros(LENGTH)
    for t in np.flatnonzero(valid):
        for d in range(3):
            column = h[valid, d]
            share = (h[t, d] - column.mean()) ** 2 / (3 * column.var()) if d < 2 else 1 / 3
            expected[t] += share / 3 / 2
        expected[t] += 1 / 3 / 2
    np.testing.assert_allclose(pooled_weights("statistics", h, valid), expected, rtol=1e-9)
    assert pooled_weights("statistics", h, valid).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("kernel", "stride", "length"), [(1, 1, 4), (3, 3, 7), (4, 4, 8), (5, 2, 6), (9, 4, 3)]
)
def test_a_tokens_share_goes_to_the_positions_that_it_sees(kernel, stride, length):
    found = spread(kernel, stride, length)
    assert found.shape == (-(-length // stride), length)
    for token, row in enumerate(found):
        seen = range(token * stride, min(token * stride + kernel, length))
        expected = [1 / len(seen) if position in seen else 0.0 for position in range(length)]
        np.testing.assert_allclose(row, expected, rtol=1e-12)
