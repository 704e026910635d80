"""Grouped, gated, adaptive, dynamic, tapered and compressed norms, and those of queries and keys."""

from functools import partial

import jax
import jax.numpy as jnp
import norm_oracles as oracle
import numpy as np
import pytest
from oracles import quick_jit, worst, x64
from tiers import every

from resnorm_jax import layer_norm, rms_norm, testing
from resnorm_jax.ops import norms

FLOAT32 = 5e-7
EPSILON = 1e-6


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def random(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng([seed, *shape]).normal(0.5, 1.2, shape).astype(dtype)


def wide(*arrays):
    return [np.asarray(a).astype(np.float64) for a in arrays]


# --- Every function of a row of 8: parameters bound, and its oracle ---

P, Q, R = (random(8, seed=seed) for seed in (1, 2, 3))
P_64, Q_64, R_64 = wide(P, Q, R)
R, R_64 = R / 8, R_64 / 8  # of a dot product


def gate_of(x):
    """A gate that depends on the row, so that one array is all that is given."""
    return jnp.flip(x, -1)


def gated_oracle(x, *, norm_first, groups=1):
    gate = oracle.silu(x[..., ::-1])
    normed = partial(oracle.rms_grouped, scale=P_64, groups=groups, epsilon=EPSILON)
    return normed(x) * gate if norm_first else normed(x * gate)


def seed_oracle(x, heads):
    dots = [part.sum(-1, keepdims=True) for part in np.split(x * R_64, heads, axis=-1)]
    each = np.concatenate([np.repeat(np.tanh(d), 8 // heads, axis=-1) for d in dots], axis=-1)
    return (each * Q_64 + P_64) * oracle.rms(x, epsilon=EPSILON)


FUNCTIONS = {
    "grouped": (
        lambda x: norms.grouped_rms_norm(x, P, groups=4),
        lambda x: oracle.rms_grouped(x, P_64, groups=4, epsilon=EPSILON),
    ),
    "gated, norm first": (
        lambda x: norms.gated_rms_norm(x, gate_of(x), P, norm_first=True),
        partial(gated_oracle, norm_first=True),
    ),
    "gated, gate first, 2 groups": (
        lambda x: norms.gated_rms_norm(x, gate_of(x), P, norm_first=False, groups=2),
        partial(gated_oracle, norm_first=False, groups=2),
    ),
    "seed": (lambda x: norms.seed_norm(x, P, Q, R), partial(seed_oracle, heads=1)),
    "seed, 4 heads": (
        lambda x: norms.seed_norm(x, P, Q, R, heads=4),
        partial(seed_oracle, heads=4),
    ),
    "taper": (
        lambda x: norms.taper_norm(x, P, Q, 0.7, gate=0.3),
        lambda x: 0.3 * oracle.rms(x, P_64, epsilon=EPSILON) + 0.7 * 0.7 * x * Q_64,
    ),
    "compressed": (
        norms.crms_norm,
        lambda x: oracle.rms(
            np.concatenate([x, -x.sum(-1, keepdims=True)], axis=-1), epsilon=EPSILON
        )[..., :-1],
    ),
    "adaptive layer": (
        lambda x: norms.adaptive_layer_norm(x, P[None], Q[None]),
        lambda x: oracle.layer(x, 1 + Q_64, P_64, epsilon=EPSILON),
    ),
    "adaptive rms": (
        lambda x: norms.adaptive_rms_norm(x, Q[None]),
        lambda x: oracle.rms(x, 1 + Q_64, epsilon=EPSILON),
    ),
    "joint": (
        lambda x: norms.joint_rms_norm(x.reshape(*x.shape[:-1], 2, 4), P.reshape(2, 4)).reshape(
            x.shape
        ),
        lambda x: oracle.rms(x, P_64, epsilon=EPSILON),
    ),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
# One of each kind: the others are made of the same calls.
KINDS = ("gated, gate first, 2 groups", "seed, 4 heads", "adaptive layer")
each_kind = pytest.mark.parametrize("name", every(FUNCTIONS, KINDS))


@every_function
def test_values_are_the_oracles_with_a_large_mean_and_length_1_too(name):
    function, expected = FUNCTIONS[name]
    rows = random(3, 1, 8), random(2, 5, 8, seed=4) + 1e3, random(1, 2, 8) * 1e-4
    rows = [x.astype(np.float32) for x in rows]
    for x, found in zip(rows, quick_jit(lambda xs: [*map(function, xs)])(rows), strict=True):
        assert worst(found, expected(*wide(x))) <= 2 * FLOAT32


@each_kind
def test_dtypes_are_kept_and_bfloat16_is_one_rounding(name):
    function, expected = FUNCTIONS[name]
    dtypes = (jnp.float32, jnp.bfloat16, jnp.float16)
    function = jax.jit(function)
    testing.assert_preserves_shape_and_dtype(function, (2, 3, 8), dtypes)
    x = jnp.asarray(random(2, 3, 8), jnp.bfloat16)
    found, exact = np.asarray(function(x)).astype(np.float64), expected(*wide(x))
    assert np.all(np.abs(found - exact) <= 1.01 * 2**-8 * np.abs(exact) + 1e-6)


@every_function
def test_float64_stays_float64(name):
    function, expected = FUNCTIONS[name]
    with x64():
        x = jnp.asarray(random(2, 3, 8), jnp.float64)
        found = quick_jit(function)(x)
        assert found.dtype == jnp.float64
        assert worst(found, expected(*wide(x))) <= 1e-12


@each_kind
def test_gradients_in_forward_and_reverse_mode(name):
    testing.assert_gradients(jax.jit(FUNCTIONS[name][0]), random(2, 3, 8), directions=1)


@pytest.mark.parametrize("name", every(KINDS))
def test_transformations_agree(name):
    testing.assert_transforms_agree(FUNCTIONS[name][0], jnp.asarray(random(2, 3, 8)))


@pytest.mark.table
@each_kind
def test_awkward_rows_are_finite_to_second_order(name):
    function = FUNCTIONS[name][0]
    testing.assert_safe_rows(jax.jit(lambda x: function(x[:, None])[:, 0]), 8)


@pytest.mark.table
def test_parameters_have_gradients_too():
    x, gate = random(2, 3, 8), random(2, 3, 8, seed=5)

    def check(function, *parameters):
        testing.assert_gradients(jax.jit(function), *parameters, directions=1)

    check(lambda p, z: norms.gated_rms_norm(x.astype(p.dtype), z, p, norm_first=False), P, gate)
    check(lambda *p: norms.seed_norm(x.astype(p[0].dtype), *p, heads=2), P, Q, R)
    check(
        lambda p, q, c, g: norms.taper_norm(x.astype(p.dtype), p, q, c, gate=g),
        P, Q, np.float32(0.7), np.float32(0.3),
    )  # fmt: skip
    modulation = random(2, 8, seed=6), random(2, 8, seed=7)
    check(lambda *m: norms.adaptive_layer_norm(x.astype(m[0].dtype), *m), *modulation)


# --- What each is for ---


def test_the_two_orders_of_a_gate_differ():
    x, gate = random(2, 8), random(2, 8, seed=1)
    first = norms.gated_rms_norm(x, gate, norm_first=True)
    second = norms.gated_rms_norm(x, gate, norm_first=False)
    assert worst(first, second) > 0.1
    assert worst(jnp.mean(second**2, axis=-1), np.ones(2)) <= 1e-5


def test_one_group_is_rms_norm():
    x = random(2, 8)
    np.testing.assert_array_equal(norms.grouped_rms_norm(x, P, groups=1), rms_norm(x, P))


@pytest.mark.table
def test_seed_is_rms_norm_at_first_and_beta_learns_first():
    x, ones, zeros = random(2, 3, 8), np.ones(8, np.float32), np.zeros(8, np.float32)
    out, pullback = jax.vjp(partial(norms.seed_norm, x), P, ones, zeros)
    np.testing.assert_array_equal(out, rms_norm(x, P))
    _, d_alpha, d_beta = pullback(jnp.asarray(random(2, 3, 8, seed=1)))
    assert not np.asarray(d_alpha).any()
    assert np.abs(d_beta).min() > 1e-3


def test_a_taper_begins_as_rms_norm_and_ends_as_a_scaling():
    x = random(2, 3, 8)
    np.testing.assert_array_equal(norms.taper_norm(x, P, Q, 0.7, gate=1.0), rms_norm(x, P))
    kernel = random(8, 5, seed=1)
    out = norms.taper_norm(x, P, Q, 0.7, gate=0.0)
    folded = np.float32(0.7) * Q[:, None] * kernel
    assert worst(out @ kernel, x @ folded) <= 1e-6


def test_the_tapers_constant_is_that_of_least_squares():
    x = random(50, 8) * np.linspace(0.5, 3, 50, dtype=np.float32)[:, None]
    above, below = norms.taper_constant(x, P)
    x_64, p_64 = wide(x, P)
    design, target = (x_64 * p_64).ravel(), oracle.rms(x_64, p_64, epsilon=EPSILON).ravel()
    best = np.linalg.lstsq(design[:, None], target, rcond=None)[0][0]
    assert abs(above / below - best) <= 1e-6 * best


def test_the_tapers_gate_by_step():
    gate = jax.jit(jax.vmap(lambda step: norms.taper_gate(step, 10, 30)))
    steps = np.array([0, 10, 15, 20, 25, 30, 99])
    turns = np.pi * np.array([0, 0, 0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(gate(steps), (1 + np.cos(turns)) / 2, atol=1e-6)
    assert gate(steps)[1] == 1.0
    assert gate(steps)[-1] == 0.0


def test_a_compressed_row_is_normed_as_the_whole_one():
    x = random(2, 3, 9) * 3 + 100
    short = norms.compress(x)
    assert short.shape == (2, 3, 8)
    whole = layer_norm(x)
    assert worst(norms.crms_norm(short), whole[..., :-1]) <= 1e-5
    assert worst(norms.expand(norms.crms_norm(short)), whole) <= 1e-5
    centred = np.asarray(x, np.float64) - x.astype(np.float64).mean(-1, keepdims=True)
    assert worst(norms.expand(short), centred) <= 2e-5


@pytest.mark.table
def test_each_sample_has_its_own_modulation():
    x, shift, scale = random(3, 4, 8), random(3, 8, seed=1), random(3, 8, seed=2)
    out = norms.adaptive_layer_norm(x, shift, scale)
    for number in range(3):
        alone = norms.adaptive_layer_norm(
            x[number : number + 1], shift[number : number + 1], scale[number : number + 1]
        )
        np.testing.assert_allclose(out[number], alone[0], rtol=1e-6, atol=1e-6)
    expected = oracle.layer(*wide(x), 1 + scale[:, None], shift[:, None], epsilon=EPSILON)
    assert worst(out, expected) <= FLOAT32
    image = norms.adaptive_layer_norm(x.reshape(3, 2, 2, 8), shift, scale)
    np.testing.assert_array_equal(image.reshape(out.shape), out)


# --- Queries and keys ---


def logits_of(query, key):
    return jnp.einsum("bthk,bshk->bhts", query, key) / query.shape[-1] ** 0.5


@pytest.mark.parametrize("scale", [np.float32(7), random(4, seed=9)], ids=["scalar", "by head"])
def test_cosine_logits(scale):
    query, key = random(2, 3, 4, 5), random(2, 6, 4, 5, seed=1)
    found = logits_of(*norms.cosine_query_key(query, key, scale))
    q, k = wide(query, key)
    q, k = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (q, k))
    factor = np.broadcast_to(np.asarray(scale, np.float64), (4,))[:, None, None]
    assert worst(found, np.einsum("bthk,bshk->bhts", q, k) * factor) <= 1e-6
    assert np.abs(np.asarray(found) / factor).max() <= 1 + 1e-6


def test_cosine_of_a_zero_query_is_zero_and_safe():
    query, key = jnp.zeros((1, 2, 1, 4)), jnp.asarray(random(1, 2, 1, 4))

    @quick_jit
    def run(query, key):
        return jax.value_and_grad(
            lambda *a: logits_of(*norms.cosine_query_key(*a, 10.0)).sum(), (0, 1)
        )(query, key)

    value, gradients = run(query, key)
    assert value == 0
    assert all(np.isfinite(g).all() for g in gradients)
    query = jnp.asarray(query, jnp.bfloat16)
    assert {a.dtype for a in norms.cosine_query_key(query, query, 1.0)} == {query.dtype}


def test_first_scales():
    for length in (2, 10, 512):
        assert norms.henry_scale(length) == pytest.approx(np.log2(length**2 - length))
    parameter = np.array([np.log(10), np.log(99), 5.0, 50.0], np.float32)
    np.testing.assert_allclose(norms.swin_scale(parameter), [10, 99, 100, 100], rtol=1e-5)
    slope = jax.vjp(norms.swin_scale, parameter)[1](jnp.ones(4))[0]
    np.testing.assert_allclose(slope, [10, 99, 0, 0], rtol=1e-5)


# --- Mistakes ---


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: norms.grouped_rms_norm(x, groups=3), "groups=3 does not divide the width 8"),
        (lambda x: norms.grouped_rms_norm(x, groups=0), "groups=0 does not divide"),
        (lambda x: norms.grouped_rms_norm(x, P[:4], groups=2), r"scale has shape \(4,\)"),
        (lambda x: norms.gated_rms_norm(x, x[:1], norm_first=True), "gate has shape"),
        (lambda x: norms.seed_norm(x, P, Q, R, heads=5), "heads=5 does not divide the width 8"),
        (lambda x: norms.adaptive_rms_norm(x, P), r"scale has shape \(8,\)"),
        (lambda x: norms.adaptive_layer_norm(x, x[:3, 0], x[:, 0]), "shift has shape"),
        (lambda x: norms.adaptive_rms_norm(x[0, 0], P[None]), "must be"),
        (lambda x: norms.split_modulation(x), "has 8 features: must be 6 times"),
        (lambda x: norms.taper_gate(1, 5, 5), "the taper ends at 5"),
        (lambda x: norms.cosine_query_key(x, x, jnp.ones(3)), r"scale has shape \(3,\)"),
        (lambda x: norms.henry_scale(1), "length is 1"),
    ],
)
def test_mistakes_are_named(function, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(function, jnp.asarray(random(4, 2, 8)))
