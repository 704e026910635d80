"""The statistics against loops in float64 NumPy; what stands in padding, NaN too, changes nothing."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import every

from resnorm_jax.lab.signals import statistics
from resnorm_jax.lab.signals.groups import LAYER_GROUPS, OUTER_GROUPS, _group
from resnorm_jax.lab.signals.jacobian import JacobianOptions, krylov, matrix

SHAPES = [(1, 2, 3, 1), (2, 3, 5, 7), (3, 4, 1, 2)]  # N, B, L, D: odd sizes, one feature, one token


def case(shape, seed=0, size=2.0):
    """Streams with NaN in the padding; the first row is whole, a row may be empty."""
    n, b, length, d = shape
    rng = np.random.default_rng(seed)
    x = size * rng.normal(0.7, 1.0, (n, b, length, d))
    lengths = [length, *rng.integers(0, length + 1, b - 1)]
    valid = np.arange(length) < np.array(lengths)[:, None]
    padded = np.where(valid[..., None], x, np.nan).astype(np.float32)
    return x.astype(np.float32).astype(np.float64), padded, valid


def positions(x, valid):
    """``[n, D]`` valid vectors of one layer."""
    return np.array([x[b, t] for b in range(len(valid)) for t in np.flatnonzero(valid[b])])


@pytest.mark.parametrize("shape", every(SHAPES, SHAPES[1:2]))
def test_power_and_root(shape):
    x, padded, valid = case(shape)
    expected = [np.mean(positions(layer, valid) ** 2) for layer in x]
    np.testing.assert_allclose(statistics.power(padded, valid), expected, rtol=1e-5)
    found = statistics.root_mean_square(padded, valid)
    np.testing.assert_allclose(found, np.sqrt(expected), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_the_root_neither_vanishes_nor_overflows(size):
    x, padded, valid = case((2, 3, 5, 7), size=size)
    expected = [np.sqrt(np.mean(positions(layer, valid) ** 2)) for layer in x]
    np.testing.assert_allclose(statistics.root_mean_square(padded, valid), expected, rtol=1e-5)


def cosine(a, b):
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("shape", every(SHAPES, SHAPES[1:2]))
def test_token_cosine(shape):
    x, padded, valid = case(shape, seed=3)
    each = [
        [
            np.mean([cosine(x[n, b, i], x[n, b, j])
                     for i, j in combinations(np.flatnonzero(valid[b]), 2)])
            for b in range(shape[1])
            if valid[b].sum() > 1
        ]
        for n in range(shape[0])
    ]  # fmt: skip
    expected = [np.mean(e) if e else np.nan for e in each]
    found = np.asarray(statistics.token_cosine(padded, valid))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_cosine_of_rows_by_hand():
    x = jnp.array([[3.0, 0.0], [0.0, 2.0], [5.0, 0.0], [np.nan, np.nan], [0.0, 0.0]])
    valid = jnp.array([True, True, True, False, False])
    np.testing.assert_allclose(statistics.mean_pairwise_cosine(x, valid), 1 / 3, rtol=1e-6)
    with_zero = statistics.mean_pairwise_cosine(x, jnp.array([True, True, True, False, True]))
    np.testing.assert_allclose(with_zero, 1 / 6, rtol=1e-6)  # 6 pairs, 3 of them with a zero row
    assert np.isnan(statistics.mean_pairwise_cosine(x, valid & (jnp.arange(5) < 1)))


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_entropy(heads):
    rng = np.random.default_rng(5)
    valid = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], bool)
    n, b, length = 2, *valid.shape
    p = rng.uniform(0, 1, (n, b, heads, length, length)) ** 8
    p[0, 0, 0, 0] = [1, 0, 0, 0, 0]  # 0 log 0
    p = p * valid[:, None, None, :] + 1e-300 * (p == 0)
    p /= np.maximum(p.sum(-1, keepdims=True), 1e-300)
    given = np.where(valid[:, None, :, None], p, np.nan).astype(np.float32)  # NaN at padded queries
    expected = []
    for layer in p:
        values = [
            -sum(q * np.log(q) for q in layer[r, h, t, : valid[r].sum()] if q > 1e-30)
            / np.log(valid[r].sum())
            for r in range(b) if valid[r].sum() > 1
            for h in range(heads) for t in np.flatnonzero(valid[r])
        ]  # fmt: skip
        expected.append(np.mean(values))
    found = statistics.attention_entropy(jnp.asarray(given), valid)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_entropy_of_even_and_of_sharp_attention():
    valid = np.array([[1, 1, 1, 0]], bool)
    even = np.broadcast_to(valid[:, None, None] / 3, (1, 1, 4, 4))
    sharp = np.broadcast_to(np.eye(4)[0], (1, 1, 4, 4))
    np.testing.assert_allclose(statistics.attention_entropy(jnp.asarray(even), valid), 1, rtol=1e-6)
    assert statistics.attention_entropy(jnp.asarray(sharp), valid) == 0
    assert np.isnan(statistics.attention_entropy(jnp.asarray(sharp), valid & (np.arange(4) < 1)))


@pytest.mark.table
def test_ratio_and_mean_and_error():
    found = statistics.ratio(jnp.array([1.0, 0.0, 3.0]), jnp.array([2.0, 0.0, 0.0]))
    np.testing.assert_array_equal(found, [0.5, np.nan, np.nan])
    samples = np.array([1.0, 2.0, 4.0, 9.0])
    mean, error = statistics.mean_and_error(jnp.asarray(samples))
    np.testing.assert_allclose([mean, error], [4.0, samples.std(ddof=1) / 2], rtol=1e-6)


def test_valid_positions_leave_out_padding_and_fillers():
    mask = np.array([[1, 1, 0], [1, 1, 1]], bool)
    weight, x = np.array([1.0, 0.0]), np.zeros((2, 3, 4))
    found = statistics.valid_positions(jnp.asarray(mask), jnp.asarray(weight), x)
    np.testing.assert_array_equal(found, [[1, 1, 0], [0, 0, 0]])
    found = statistics.valid_positions(None, jnp.asarray(weight), x)
    np.testing.assert_array_equal(found, [[1, 1, 1], [0, 0, 0]])


# --- Jacobian ---


def smooth(weight):
    """A function with a known, uneven spectrum, which neither reads nor writes the last row."""

    def function(x):
        inside = x.at[-1].set(0)
        return (jnp.tanh(inside.ravel() @ weight) ** 2).reshape(x.shape).at[-1].set(0)

    return function


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(60, 60)) @ np.diag(0.9 ** np.arange(60)) / 8
    x = jnp.asarray(rng.normal(size=(12, 5)), jnp.float32)
    function = smooth(jnp.asarray(weight, jnp.float32))
    dense = np.asarray(jax.jacfwd(function)(x)).reshape(60, 60).astype(np.float64)
    valid = np.broadcast_to((np.arange(12) < 11)[:, None], (12, 1))
    return function, x, dense, valid


@pytest.mark.table
def test_the_matrix_is_jacfwds(problem):
    function, x, dense, _ = problem
    np.testing.assert_allclose(matrix(function, x), dense, atol=1e-6)


@pytest.mark.table
def test_krylov_finds_the_largest_singular_values(problem):
    function, x, dense, valid = problem
    options = JacobianOptions(block=4, depth=6)
    values, _ = krylov(function, x, valid, jax.random.key(0), options)
    expected = np.linalg.svd(dense, compute_uv=False)
    np.testing.assert_allclose(values, expected[:4], rtol=1e-4)


@pytest.mark.table
def test_random_signs_find_the_mean_square(problem):
    function, x, dense, valid = problem
    options = JacobianOptions(block=2, depth=4, probes=500)
    _, samples = krylov(function, x, valid, jax.random.key(1), options)
    mean, error = statistics.mean_and_error(samples)
    assert samples.shape == (2000,)
    assert abs(float(mean) - (dense**2).sum() / 55) < 4 * float(error)
    assert float(error) < 0.05 * float(mean)


@pytest.mark.table
@pytest.mark.parametrize("factor", every([1.0, 3e-20, 3e20], [3e-20]))
def test_equal_singular_values_are_found_as_often_as_they_occur(factor):
    """The identity, where a single Krylov vector would find 1 once, and squares would overflow."""
    x = jnp.ones((7, 9))
    valid = jnp.ones((7, 9), bool)
    found, samples = krylov(
        lambda z: factor * z, x, valid, jax.random.key(2), JacobianOptions(block=3, depth=4)
    )
    np.testing.assert_allclose(found, factor, rtol=1e-5)
    if factor == 1:
        np.testing.assert_allclose(samples, 1, rtol=1e-6)


@pytest.mark.table
def test_a_function_that_does_not_move_has_no_singular_values():
    x = jnp.ones((7, 9))
    options = JacobianOptions(block=2, depth=2)
    found, _ = krylov(lambda z: 0 * z, x, x > 0, jax.random.key(2), options)
    np.testing.assert_array_equal(found, 0)


# --- Groups ---


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("attention/branch/query/kernel", "query"),
        ("attention/branch/query_norm/scale", "norms"),
        ("attention/norm_before/bias", "norms"),
        ("feed_forward/branch/fc1/bias", "fc1"),
        ("parallel/branch/branches_feed_forward/fc2/kernel", "fc2"),
        ("feed_forward/branch/gate/kernel", "gate"),
        ("feed_forward/branch/mlp_norm/scale", "norms"),
        ("attention/branch/head_scale", "inside"),
        ("attention/branch/shaped_skip_gate", "inside"),
        ("attention/mix_gate", "stream"),
        ("gate", "stream"),
        ("attention/norm_gate/kernel", "norms"),
    ],
)
def test_groups_of_a_layer(path, group):
    assert _group(path, LAYER_GROUPS) == group


def test_groups_outside():
    given = ("head/kernel", "encoder/final_norm/scale", "front_end/embed/kernel", "cls")
    assert [_group(path, OUTER_GROUPS) for path in given] == [
        "head", "stack", "embedding", "embedding",
    ]  # fmt: skip
