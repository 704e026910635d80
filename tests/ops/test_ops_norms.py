"""Norms against float64 oracles: values, derivatives, masks, axes, transformations, neighbours."""

import warnings
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax.test_util import check_grads
from oracles import quick_jit, worst, x64
from tiers import every

from resnorm_jax import (
    LayerNorm,
    add_layer_norm,
    add_rms_norm,
    layer_norm,
    rms_norm,
    std_layer_norm,
)
from resnorm_jax.ops.statistics import _rsqrt

FLOAT32 = 5e-7  # of the largest element: a few roundings of 2^-24 = 6e-8
NORMS = {
    "layer_norm": (layer_norm, oracles.layer_norm, oracles.layer_norm_vjp, True),
    "rms_norm": (rms_norm, oracles.rms_norm, oracles.rms_norm_vjp, False),
    "std_layer_norm": (std_layer_norm, oracles.std_layer_norm, oracles.std_layer_norm_vjp, True),
}
every_norm = pytest.mark.parametrize("name", NORMS)
masked_norm = pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def case(name, shape=(5, 7), features=None, seed=0, dtype=np.float32):
    """Random x and, as the norm takes them, a random scale and bias, none of them near 1 or 0."""
    rng = np.random.default_rng(seed)
    features = shape[-1:] if features is None else features
    x = rng.normal(0.5, 1.5, shape).astype(dtype)
    scale = (rng.uniform(0.5, 2, features) * rng.choice([-1, 1], features)).astype(dtype)
    bias = rng.normal(0, 1, features).astype(dtype)
    return (x, scale, bias) if NORMS[name][3] else (x, scale)


def cotangent(x, seed=1):
    return np.random.default_rng(seed).normal(size=x.shape).astype(x.dtype)


def value_and_vjp(function, arrays, weights):
    """Value and cotangents of all arrays, compiled once."""

    @quick_jit
    def run(arrays, weights):
        out, pullback = jax.vjp(function, *arrays)
        return out, pullback(weights)

    return run([jnp.asarray(a) for a in arrays], jnp.asarray(weights))


def wide(arrays):
    return [np.asarray(a, np.float64) for a in arrays]


# --- The oracles themselves ---


@every_norm
def test_oracle_vjps_agree_with_the_complex_step(name):
    _, oracle, vjp, _ = NORMS[name]
    arrays = case(name, (3, 4), dtype=np.float64)
    weights = cotangent(arrays[0])
    tree = dict(zip("abc", arrays, strict=False))
    expected = oracles.gradients(lambda t: (oracle(*t.values()) * weights).sum(), tree)
    for found, leaf in zip(vjp(*arrays, weights), expected.values(), strict=True):
        assert worst(found, leaf) < 1e-13


# --- Values and first derivatives ---


@pytest.mark.parametrize("width", every([1, 2, 7, 64, 1000], [1, 7]))
@every_norm
def test_float32_is_within_a_few_roundings(name, width):
    norm, oracle, vjp, _ = NORMS[name]
    arrays = case(name, (5, width), seed=width)
    weights = cotangent(arrays[0])
    out, found = value_and_vjp(norm, arrays, weights)
    assert out.dtype == jnp.float32
    assert worst(out, oracle(*wide(arrays))) <= FLOAT32
    assert len(found) == len(arrays)
    for leaf, expected in zip(found, vjp(*wide(arrays), weights.astype(float)), strict=True):
        if width > 2 or expected.shape == (width,):
            assert worst(leaf, expected) <= 2e-6
        else:  # the gradient itself vanishes: up to epsilon, two elements are always -1 and 1
            np.testing.assert_allclose(leaf, expected, atol=2e-4)


@every_norm
def test_float64_stays_float64(name):
    norm, oracle, vjp, _ = NORMS[name]
    arrays = case(name, (4, 9), dtype=np.float64)
    weights = cotangent(arrays[0])
    with x64():
        out, found = value_and_vjp(norm, arrays, weights)
        assert out.dtype == jnp.float64
        assert worst(out, oracle(*arrays)) < 1e-12
        for leaf, expected in zip(found, vjp(*arrays, weights), strict=True):
            assert worst(leaf, expected) < 1e-12


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.table)]
)
@every_norm
def test_half_precision_is_one_rounding_of_the_oracle(name, dtype):
    norm, oracle, vjp, _ = NORMS[name]
    arrays = [jnp.asarray(a, dtype) for a in case(name, (6, 33))]
    weights = jnp.asarray(cotangent(case(name, (6, 33))[0]), dtype)
    out, found = value_and_vjp(norm, arrays, weights)
    assert out.dtype == dtype
    expected = oracle(*wide(arrays))
    unit = float(jnp.finfo(dtype).eps) / 2  # a rounding's relative error
    error = np.abs(np.asarray(out, np.float64) - expected)
    assert np.all(error <= 1.01 * unit * np.abs(expected) + 1e-5)
    for leaf, want in zip(found, vjp(*wide([*arrays, weights])), strict=True):
        assert leaf.dtype == dtype
        assert worst(leaf, want) <= 2 * unit  # one rounding of the sum


@pytest.mark.table
def test_float32_parameters_are_used_in_float32_with_bfloat16_input():
    x, scale, bias = case("layer_norm", (6, 33))
    x = jnp.asarray(x, jnp.bfloat16)
    out = layer_norm(x, jnp.asarray(scale), jnp.asarray(bias))
    assert out.dtype == jnp.bfloat16
    expected = oracles.layer_norm(*wide((x, scale, bias)))
    assert np.all(np.abs(np.asarray(out, float) - expected) <= 2**-8 * np.abs(expected) + 1e-5)


@every_norm
def test_integers_are_taken_as_float32(name):
    norm, oracle, _, _ = NORMS[name]
    x = np.arange(12).reshape(3, 4) ** 2
    out = norm(jnp.asarray(x))
    assert out.dtype == jnp.float32
    assert worst(out, oracle(x.astype(float))) <= FLOAT32


@every_norm
def test_scale_and_bias_may_be_absent(name):
    norm, oracle, _, has_bias = NORMS[name]
    x, scale, *rest = case(name)
    assert worst(norm(x), oracle(wide([x])[0])) <= FLOAT32
    assert worst(norm(x, scale), oracle(*wide([x, scale]))) <= FLOAT32
    if has_bias:
        expected = oracle(wide([x])[0], bias=rest[0].astype(float))
        assert worst(norm(x, bias=rest[0]), expected) <= FLOAT32


@every_norm
def test_epsilon_enters_where_the_equation_says(name):
    norm, oracle, _, _ = NORMS[name]
    arrays = case(name)
    small = (arrays[0] * np.float32(1e-2), *arrays[1:])
    for epsilon in (1e-6, 1e-2):
        expected = oracle(*wide(small), epsilon=epsilon)
        assert worst(norm(*small, epsilon=epsilon), expected) <= FLOAT32
    assert worst(oracle(*wide(small)), oracle(*wide(small), epsilon=1e-2)) > 1e-2


# --- Higher derivatives and modes ---


@pytest.mark.parametrize("axis", every([-1, (0, 2)], [(0, 2)]))
@every_norm
def test_derivatives_of_second_order_in_both_modes(name, axis):
    norm, _, vjp, _ = NORMS[name]
    features = (2, 4) if axis == (0, 2) else (4,)
    arrays = case(name, (2, 3, 4), features, dtype=np.float64)
    laid = [arrays[0], *(p if axis == -1 else p.reshape(2, 1, 4) for p in arrays[1:])]
    weights = cotangent(arrays[0])
    tangents = [cotangent(a, 7 + i) for i, a in enumerate(laid)]
    # Directional derivative of the hand-written VJP by the complex step.
    moved = [a + 1j * oracles.STEP * t for a, t in zip(laid, tangents, strict=True)]
    expected = [leaf.imag / oracles.STEP for leaf in vjp(*moved, weights, axis=axis)]

    def gradient(arrays):
        return jax.vjp(partial(norm, axis=axis), *arrays)[1](jnp.asarray(weights))

    def along(arrays, tangents):
        pairs = zip(gradient(arrays), tangents, strict=True)
        return sum(jnp.vdot(g, t) for g, t in pairs)

    @quick_jit
    def second(arrays, tangents):
        forward_over_reverse = jax.jvp(gradient, (arrays,), (tangents,))[1]
        return forward_over_reverse, jax.grad(along)(arrays, tangents)

    with x64():
        moved = [t.reshape(a.shape) for a, t in zip(arrays, tangents, strict=True)]
        modes = second(list(arrays), moved)
    for found in modes:
        for leaf, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(leaf, want.reshape(leaf.shape), rtol=1e-9, atol=1e-11)
    assert np.abs(expected[0]).max() > 1e-2


@pytest.mark.table
def test_numerical_derivatives_of_second_order():
    arrays = case("layer_norm", (2, 3), dtype=np.float64)
    mask = np.array([[True, True, True], [True, False, True]])
    with x64():
        weights = jnp.asarray(cotangent(arrays[0]))
        # A random cotangent: the plain sum of a layer norm has no gradient at all.
        loss = jax.jit(lambda *a: (layer_norm(*a, mask=mask) * weights).sum())
        check_grads(loss, tuple(map(jnp.asarray, arrays)), 2, atol=1e-6, rtol=1e-6)


@every_norm
def test_forward_mode_is_the_transpose_of_reverse_mode(name):
    norm = NORMS[name][0]
    arrays = [jnp.asarray(a) for a in case(name)]
    tangents = [jnp.asarray(cotangent(a, 5 + i)) for i, a in enumerate(arrays)]
    weights = jnp.asarray(cotangent(arrays[0]))
    _, pushed = quick_jit(partial(jax.jvp, norm))(arrays, tangents)
    _, pulled = value_and_vjp(norm, arrays, weights)
    left = float(jnp.vdot(weights, pushed))
    right = sum(float(jnp.vdot(p, t)) for p, t in zip(pulled, tangents, strict=True))
    assert abs(left) > 0.1
    assert left == pytest.approx(right, rel=1e-5)


@pytest.mark.table
@every_norm
def test_zero_and_constant_rows_are_finite_to_second_order(name):
    norm, _, _, has_bias = NORMS[name]
    _, *rest = case(name)
    x = jnp.stack([jnp.zeros(7), jnp.full(7, 3.0), jnp.full(7, 1e4), jnp.full(7, 0.1)])
    parameters = [jnp.asarray(p) for p in rest]
    weights = jnp.asarray(cotangent(x))

    def loss(x):
        return (norm(x, *parameters) * weights).sum()

    out = norm(x, *parameters)
    gradient, second = quick_jit(partial(jax.jvp, jax.grad(loss)))((x,), (weights,))
    for array in (out, gradient, second):
        assert np.isfinite(array).all()
    if has_bias:  # a constant row gives the bias
        np.testing.assert_allclose(out, np.broadcast_to(rest[1], x.shape), atol=1e-6)
    else:
        assert not np.asarray(out[0]).any()


def test_one_element_has_the_bias_and_no_gradient():
    scale, bias = jnp.array([2.0]), jnp.array([-0.5])
    for norm in (layer_norm, std_layer_norm):
        x = jnp.array([[3.0], [-1e3]])
        out, found = value_and_vjp(norm, (x, scale, bias), jnp.array([[1.0], [3.0]]))
        np.testing.assert_array_equal(out, [[-0.5], [-0.5]])
        np.testing.assert_array_equal(found[0], [[0.0], [0.0]])
        np.testing.assert_array_equal(found[2], [4.0])


# --- Large means ---


def rows_with_mean(mean, width=512):
    return np.random.default_rng(3).normal(mean, 1, (64, width)).astype(np.float32)


@pytest.mark.parametrize("mean", every([0, 1e2, 1e3, 1e4], [1e4]))
def test_a_large_mean_costs_layer_norm_nothing(mean):
    x = rows_with_mean(mean)
    _, scale, bias = case("layer_norm", (1, 512))
    expected = oracles.layer_norm(*wide((x, scale, bias)))
    assert worst(layer_norm(x, scale, bias), expected) <= 1e-6


def test_flax_loses_digits_to_a_large_mean_where_this_library_does_not():
    x = rows_with_mean(1e3)
    expected = oracles.layer_norm(x.astype(float))
    assert worst(nn.LayerNorm(use_bias=False, use_scale=False).apply({}, x), expected) > 1e-3
    assert worst(layer_norm(x), expected) <= 1e-6


def test_gradients_at_a_large_mean():
    x, scale, bias = rows_with_mean(1e3), *case("layer_norm", (1, 512))[1:]
    weights = cotangent(x)
    _, found = value_and_vjp(layer_norm, (x, scale, bias), weights)
    expected = oracles.layer_norm_vjp(*wide((x, scale, bias)), weights.astype(float))
    for leaf, want in zip(found, expected, strict=True):
        assert worst(leaf, want) <= 2e-6


# --- Masks ---


def masked_case(name):
    """Arrays, a mask with unequal rows (one empty, one full), NaN and infinities where masked."""
    arrays = case(name, (4, 6))
    mask = np.array([[1, 1, 0, 1, 0, 1], [0] * 6, [1] * 6, [0, 0, 1, 1, 0, 0]], bool)
    dirty = np.where(mask, arrays[0], np.array([np.nan, np.inf] * 3, np.float32))
    return arrays, mask, dirty


@masked_norm
def test_masked_elements_change_nothing(name):
    norm, oracle, vjp, _ = NORMS[name]
    arrays, mask, dirty = masked_case(name)
    parameters = [jnp.asarray(p) for p in arrays[1:]]
    weights = cotangent(dirty)
    out, found = value_and_vjp(partial(norm, mask=mask), (dirty, *parameters), weights)
    assert np.isfinite(out).all()
    assert not np.asarray(out)[~mask].any()
    assert not np.asarray(found[0])[~mask].any()
    # Row by row on the valid elements alone.
    sums = [np.zeros(6) for _ in parameters]
    for row, valid in enumerate(mask):
        if not valid.any():
            continue
        cut = [np.asarray(a, float)[..., valid] for a in (dirty[row], *arrays[1:])]
        np.testing.assert_allclose(np.asarray(out)[row, valid], oracle(*cut), atol=2e-6)
        dx, *rest = vjp(*cut, weights[row, valid].astype(float))
        np.testing.assert_allclose(np.asarray(found[0])[row, valid], dx, atol=5e-6)
        for total, part in zip(sums, rest, strict=True):
            total[valid] += part
    for leaf, expected in zip(found[1:], sums, strict=True):
        np.testing.assert_allclose(leaf, expected, atol=5e-6)


@masked_norm
def test_masked_derivatives_of_second_order_are_finite_and_blind(name):
    norm = NORMS[name][0]
    arrays, mask, dirty = masked_case(name)
    clean = np.where(mask, dirty, 0)
    weights = jnp.asarray(cotangent(clean))
    parameters = [jnp.asarray(p) for p in arrays[1:]]

    @quick_jit
    def second(x):
        return jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), weights))(x)

    def loss(x):
        return (norm(x, *parameters, mask=mask) * weights).sum()

    found = second(jnp.asarray(dirty))
    assert np.abs(found).max() > 1e-3
    np.testing.assert_array_equal(found, second(jnp.asarray(clean)))
    assert not np.asarray(found)[~mask].any()


@masked_norm
def test_a_mask_may_broadcast_and_a_full_mask_is_none(name):
    norm = NORMS[name][0]
    arrays = case(name, (2, 3, 6))
    mask = np.array([1, 1, 0, 1, 0, 1], bool)
    full = np.broadcast_to(mask, arrays[0].shape)
    np.testing.assert_array_equal(norm(*arrays, mask=mask[None, None]), norm(*arrays, mask=full))
    whole = norm(*arrays, mask=np.ones_like(full))
    np.testing.assert_allclose(whole, norm(*arrays), rtol=1e-6, atol=1e-6)


# --- Axes and shapes ---


@pytest.mark.parametrize("axis", every([0, -2, (1, 2), (-1, 0)], [(-1, 0)]))
@every_norm
def test_axes_and_parameters_laid_along_them(name, axis):
    norm, oracle, vjp, _ = NORMS[name]
    shape = (3, 4, 5)
    axes = sorted(a % 3 for a in ((axis,) if isinstance(axis, int) else axis))
    arrays = case(name, shape, tuple(shape[a] for a in axes))
    laid = [p.reshape([n if a in axes else 1 for a, n in enumerate(shape)]) for p in arrays[1:]]
    oracle_arrays = wide([arrays[0], *laid])
    weights = cotangent(arrays[0])
    out, found = value_and_vjp(partial(norm, axis=axis), arrays, weights)
    assert worst(out, oracle(*oracle_arrays, axis=tuple(axes))) <= FLOAT32
    broadcast = quick_jit(partial(norm, axis=axis))(arrays[0], *laid)
    np.testing.assert_allclose(out, broadcast, rtol=1e-6, atol=1e-6)
    expected = vjp(*oracle_arrays, weights.astype(float), axis=tuple(axes))
    for leaf, want, like in zip(found, expected, arrays, strict=True):
        assert worst(leaf, want.reshape(like.shape)) <= 2e-6


@every_norm
def test_what_does_not_fit_is_an_error_that_names_the_shapes(name):
    norm, _, _, has_bias = NORMS[name]
    x = jnp.ones((2, 4))
    with pytest.raises(ValueError, match=r"scale has shape \(2,\).*\(4,\)"):
        norm(x, jnp.ones(2))
    with pytest.raises(ValueError, match=r"scale has shape \(1,\).*\(4,\)"):
        norm(x, jnp.ones(1))  # an accidental broadcast
    with pytest.raises(ValueError, match=r"scale has shape \(3, 2, 4\)"):
        norm(x, jnp.ones((3, 2, 4)))
    if has_bias:
        with pytest.raises(ValueError, match=r"bias has shape \(5,\).*\(4,\)"):
            norm(x, None, jnp.ones(5))
    for axis in (2, -3, (0, 5)):
        with pytest.raises(ValueError, match="out of range"):
            norm(x, axis=axis)


@masked_norm
def test_an_unknown_implementation_is_an_error(name):
    with pytest.raises(
        ValueError, match=r"implementation 'cuda' is not one of \('xla', 'triton', "
    ):
        NORMS[name][0](jnp.ones((2, 4)), implementation="cuda")
    NORMS[name][0](jnp.ones((2, 4)), implementation="xla")


# --- Transformations ---


@pytest.mark.parametrize("name", every(NORMS))
def test_jit_vmap_scan_and_remat_agree(name):
    norm = NORMS[name][0]
    arrays = [jnp.asarray(a) for a in case(name, (3, 4, 8))]
    weights = jnp.asarray(cotangent(arrays[0]))

    def scanned(x, *parameters):
        return jax.lax.scan(lambda c, row: (c, norm(row, *parameters)), 0, x)[1]

    ways = {
        "jit": norm,
        "vmap": jax.vmap(norm, (0, *[None] * (len(arrays) - 1))),
        "scan": scanned,
        "remat": jax.checkpoint(norm),
    }

    out, pullback = jax.vjp(norm, *arrays)  # operation by operation
    expected = [out, *pullback(weights)]
    for label, way in ways.items():
        out, found = value_and_vjp(way, arrays, weights)
        for got, want in zip([out, *found], expected, strict=True):
            assert worst(got, want) <= 1e-6, label


def shards(name):
    """Feature axis cut in two shards with unequal numbers of valid elements."""
    arrays = case(name, (3, 8))
    mask = np.array([[1, 1, 0, 1, 0, 0, 1, 0], [1] * 8, [0, 0, 0, 0, 1, 1, 1, 0]], bool)
    return arrays, mask, [jnp.asarray(np.stack(np.split(a, 2, -1))) for a in (*arrays, mask)]


@pytest.mark.parametrize("use_mask", every([True, False], [True]))
@masked_norm
def test_statistics_shared_over_a_mapped_axis_are_those_of_the_whole(name, use_mask):
    norm = NORMS[name][0]
    arrays, mask, (x, *parameters, masks) = shards(name)
    weights = cotangent(arrays[0])
    cut = jnp.asarray(np.stack(np.split(weights, 2, -1)))

    def mapped(*args):
        def one(*args):
            *args, m = args
            return norm(*args, mask=m if use_mask else None, axis_name="shards")

        return (jax.vmap(one, axis_name="shards")(*args, masks) * cut).sum()

    def whole(*args):
        return (norm(*args, mask=mask if use_mask else None) * weights).sum()

    numbers = tuple(range(len(arrays)))
    value, grads = quick_jit(jax.value_and_grad(whole, numbers))(*arrays)
    found, cut_grads = quick_jit(jax.value_and_grad(mapped, numbers))(x, *parameters)
    assert found == pytest.approx(float(value), rel=1e-5)
    for got, want in zip(cut_grads, grads, strict=True):
        joined = np.concatenate(list(np.asarray(got)), axis=-1)
        assert worst(joined, want) <= 2e-6


def test_index_groups_share_statistics_within_a_group_only():
    x = np.random.default_rng(0).normal(size=(1, 2, 6)).astype(np.float32)
    one = partial(layer_norm, axis_name="i", axis_index_groups=[[0]])
    out = jax.pmap(one, axis_name="i")(x)
    assert worst(out, oracles.layer_norm(x.astype(float))) <= FLOAT32


def test_a_mean_of_the_shards_means_would_be_wrong_here():
    """The case above can tell: with unequal counts the two differ."""
    _, mask, (x, *_, masks) = shards("layer_norm")
    per_shard = [np.asarray(x[i])[0][np.asarray(masks[i])[0]].mean() for i in (0, 1)]
    joined = np.concatenate(list(np.asarray(x)), -1)[0][mask[0]].mean()
    assert abs(np.mean(per_shard) - joined) > 1e-2


# --- Variants ---


def test_scale_offset_is_added_in_float32():
    x, scale = case("rms_norm", (4, 16))
    expected = oracles.rms_norm(*wide((x, scale + np.float32(1))))
    assert worst(rms_norm(x, scale, scale_offset=1.0), expected) <= FLOAT32
    tiny = jnp.full(16, 1e-3, jnp.bfloat16)  # 1 + 1e-3 is 1 in bfloat16
    out = rms_norm(jnp.asarray(x), tiny, scale_offset=1.0)
    expected = oracles.rms_norm(x.astype(float)) * (1 + float(tiny[0]))
    assert worst(out, expected) <= FLOAT32
    gradient = jax.grad(lambda s: rms_norm(x, s, scale_offset=1.0)[0, 0])(jnp.asarray(scale))
    assert gradient[0] == pytest.approx(oracles.rms_norm(x.astype(float))[0, 0], rel=1e-5)


def test_std_layer_norm_is_another_function_than_layer_norm():
    x = case("layer_norm", (4, 8))[0]
    np.testing.assert_allclose(
        std_layer_norm(x), layer_norm(x) * np.float32(np.sqrt(7 / 8)), rtol=1e-5, atol=1e-6
    )


def test_add_and_norm_are_the_sum_and_its_norm():
    x, scale, bias = case("layer_norm")
    branch = cotangent(x)
    total = x.astype(float) + branch
    normed, stream = add_layer_norm(x, branch, scale, bias, epsilon=1e-3)
    np.testing.assert_array_equal(stream, x + branch)
    assert worst(normed, oracles.layer_norm(total, scale, bias, epsilon=1e-3)) <= FLOAT32
    normed, stream = add_rms_norm(x, branch, scale, scale_offset=1.0)
    np.testing.assert_array_equal(stream, x + branch)
    assert worst(normed, oracles.rms_norm(total, scale + 1)) <= 2 * FLOAT32


# --- Neighbours ---


def test_equal_to_torch():
    torch = pytest.importorskip("torch")
    x, scale, bias = case("layer_norm", (3, 5, 16))
    weights = cotangent(x)
    for norm, module, parameters in (
        (layer_norm, torch.nn.functional.layer_norm, (scale, bias)),
        (rms_norm, torch.nn.functional.rms_norm, (scale,)),
    ):
        out, found = value_and_vjp(partial(norm, epsilon=1e-5), (x, *parameters), weights)
        tensors = [torch.tensor(a, requires_grad=True) for a in (x, *parameters)]
        expected = module(tensors[0], (16,), *tensors[1:], eps=1e-5)
        expected.backward(torch.tensor(weights))
        assert worst(out, expected.detach()) <= 1e-6
        for leaf, tensor in zip(found, tensors, strict=True):
            assert worst(leaf, tensor.grad) <= 2e-6


def test_std_layer_norm_is_the_tutorial_code():
    torch = pytest.importorskip("torch")
    x, scale, bias = case("std_layer_norm", (3, 16))
    t = torch.tensor(x)
    mean, std = t.mean(-1, keepdim=True), t.std(-1, keepdim=True)
    expected = torch.tensor(scale) * (t - mean) / (std + 1e-6) + torch.tensor(bias)
    assert worst(std_layer_norm(x, scale, bias), expected) <= 1e-6


@pytest.mark.table
def test_equal_to_flax():
    x, scale, bias = case("layer_norm", (3, 5, 16))
    expected = nn.LayerNorm().apply({"params": {"scale": scale, "bias": bias}}, x)
    assert worst(layer_norm(x, scale, bias), expected) <= 1e-6
    expected = nn.RMSNorm().apply({"params": {"scale": scale}}, x)
    assert worst(rms_norm(x, scale), expected) <= 1e-6


def test_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, (norm, *_) in NORMS.items():
            norm(*case(name))


@pytest.mark.parametrize("compiled", [False, True])
def test_inverse_root_has_a_second_part_that_survives_compilation(compiled):
    x = (10.0 ** np.random.default_rng(0).uniform(-28, 37, 2001)).astype(np.float32)
    root, rest = (jax.jit(_rsqrt) if compiled else _rsqrt)(x)
    both = np.asarray(root, np.float64) + np.asarray(rest, np.float64)
    np.testing.assert_allclose(both * np.sqrt(x.astype(np.float64)), 1, rtol=0, atol=1e-10)


def test_inverse_root_has_no_second_part_where_its_products_are_not_exact():
    root, rest = _rsqrt(jnp.array([0, 1e-38, 3e38, jnp.inf], jnp.float32))
    np.testing.assert_array_equal(rest, 0)
    np.testing.assert_array_equal(root, jax.lax.rsqrt(jnp.array([0, 1e-38, 3e38, jnp.inf])))


@pytest.mark.parametrize("value", every([0.0, 1.2345, 98765.4], [98765.4]))
def test_constant_rows_of_two_to_a_power_give_exactly_zero(value):
    out = jax.jit(layer_norm)(jnp.full((3, 64), value, jnp.float32))
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("mean", every([1e2, 1e3, 1e4, 1e5], [1e5]))
def test_fault_0_3_a_large_mean_costs_no_digits(mean):
    """flax.linen's default, and jax.nn.standardize's, square the mean: E[x^2] - E[x]^2."""
    x = np.random.default_rng(0).normal(mean, 1, (16, 512)).astype(np.float32)
    exact = x.astype(np.float64)
    centred = exact - exact.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    theirs = nn.LayerNorm(use_bias=False, use_scale=False).apply({}, x)
    for wrong in (theirs, jax.nn.standardize(x, axis=-1, epsilon=1e-6)):
        assert np.abs(wrong - expected).max() > 1e-4  # the fault is there to be seen
    plain = LayerNorm(use_bias=False, use_scale=False)
    for ours in (layer_norm(x), plain.apply({}, x)):
        assert np.abs(ours - expected).max() <= 1e-6
