"""Norms with statistics over rows: float64 oracles, flax and torch, masks, devices, running values."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import quick_jit, worst
from tiers import every

import resnorm_jax as rn
from resnorm_jax import testing
from resnorm_jax.ops.norms import batch_norm, group_norm, norm_by_statistics
from resnorm_jax.training.roles import decay_mask

ROWS = [row for row in rn.norms.rows() if row.across_rows]
TESTED = {"batch": "here", "power": "test_power_norm.py"}


# --- Oracles: complex numbers pass through, so that `oracles.gradients` can differentiate ---


def valid_mean(x, mask, axes):
    count = np.maximum(np.broadcast_to(mask, x.shape).sum(axes, keepdims=True), 1)
    return np.where(mask, x, 0).sum(axes, keepdims=True) / count


def standardized(x, mask, axes, epsilon):
    mean = valid_mean(x, mask, axes)
    variance = valid_mean((x - mean) ** 2, mask, axes)
    return np.where(mask, (x - mean) / np.sqrt(variance + epsilon), 0), mean, variance


def batch_oracle(x, scale, bias, mask, epsilon=1e-5):
    """1502.03167: over all valid positions of all rows."""
    normed, _, _ = standardized(x, mask, tuple(range(x.ndim - 1)), epsilon)
    return np.where(mask, normed * scale + bias, 0)


def group_oracle(x, scale, bias, mask, groups, epsilon=1e-6):
    """1803.08494: over all positions of a row and the features of a group."""
    parts = (*x.shape[:-1], groups, -1)
    mask = np.broadcast_to(mask, x.shape)
    axes = (*range(1, x.ndim - 1), x.ndim)
    normed, _, _ = standardized(x.reshape(parts), mask.reshape(parts), axes, epsilon)
    return np.where(mask, normed.reshape(x.shape) * scale + bias, 0)


def case(shape=(3, 5, 6), seed=0, mean=0.3):
    rng = np.random.default_rng(seed)
    x = rng.normal(mean, 2, shape).astype(np.float32)
    scale, bias = rng.normal(0.5, 1, (2, shape[-1])).astype(np.float32)
    rows = int(np.prod(shape[:-1]))  # three quarters count: with two the gradient is all epsilon
    mask = (rng.permutation(rows) < 0.75 * rows).reshape(*shape[:-1], 1)
    return x, scale, bias, mask, rng.normal(size=shape).astype(np.float32)


def value_and_gradients(function, x, scale, bias, weights):
    def loss(*args):
        out = function(*args)
        return (out * weights).sum(), out

    grads, out = quick_jit(jax.grad(loss, (0, 1, 2), has_aux=True))(x, scale, bias)
    return out, dict(zip(("x", "scale", "bias"), grads, strict=True))


def wide(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


FUNCTIONS = {
    "batch": (lambda x, s, b, m: batch_norm(x, s, b, mask=m), batch_oracle),
    "group": (
        lambda x, s, b, m: group_norm(x, s, b, groups=3, mask=m),
        lambda x, s, b, m: group_oracle(x, s, b, m, 3),
    ),
}
both = pytest.mark.parametrize("name", FUNCTIONS)


@both
@pytest.mark.parametrize("shape", every([(3, 5, 6), (4, 1, 3), (7, 9)], [(3, 5, 6)]))
def test_values_and_gradients_are_those_of_the_oracle(name, shape):
    x, scale, bias, mask, weights = case(shape)
    function, oracle = FUNCTIONS[name]
    poisoned = np.where(mask, x, np.nan)
    out, found = value_and_gradients(
        lambda *args: function(*args, mask), poisoned, scale, bias, weights
    )
    x, scale, bias, weights = wide(np.where(mask, x, 0), scale, bias, weights)
    assert worst(out, oracle(x, scale, bias, mask)) <= 1e-6
    expected = oracles.gradients(
        lambda t: (oracle(t["x"], t["scale"], t["bias"], mask) * weights).sum(),
        {"x": x, "scale": scale, "bias": bias},
    )
    for key, leaf in expected.items():
        assert worst(found[key], leaf) <= 2e-6, key
    assert not np.asarray(found["x"])[~np.broadcast_to(mask, x.shape)].any()


@pytest.mark.table
@both
def test_derivatives_in_both_modes(name):
    x, scale, bias, mask, _ = case((2, 8, 6))
    norm = jax.jit(lambda *args: FUNCTIONS[name][0](*args, mask))
    testing.assert_gradients(norm, x, scale, bias, directions=1)
    if name == "batch":
        mean, variance = np.linspace(-1, 1, 6), np.linspace(0.1, 2, 6)
        testing.assert_gradients(
            jax.jit(lambda x, s, b: norm_by_statistics(x, mean, variance, s, b)), x, scale, bias,
            directions=1,
        )  # fmt: skip


@both
@pytest.mark.parametrize("mean", every([1e3, 1e4], [1e4]))
def test_large_means_keep_their_digits(name, mean):
    x, scale, bias, mask, _ = case(mean=mean)
    function, oracle = FUNCTIONS[name]
    found = quick_jit(function)(x, scale, bias, mask)
    error = worst(found, oracle(*wide(x, scale, bias), mask))
    assert error <= 1e-7 * mean  # flax: 0.3 and 4e3 at these means


@both
def test_constant_and_wholly_masked_inputs_are_finite(name):
    x, scale, bias, mask, weights = case()
    for values, valid in ((np.full_like(x, 3), mask), (x, np.zeros_like(mask))):
        out, found = value_and_gradients(
            lambda *args, valid=valid: FUNCTIONS[name][0](*args, valid),
            values, scale, bias, weights,
        )  # fmt: skip
        np.testing.assert_allclose(out, np.where(valid, bias, 0), atol=1e-6)
        assert all(np.isfinite(leaf).all() for leaf in found.values())


@pytest.mark.table
@both
def test_bfloat16_is_one_rounding(name):
    x, scale, bias, mask, _ = case()
    x = jnp.asarray(x, jnp.bfloat16)
    out = FUNCTIONS[name][0](x, scale, bias, mask)
    assert out.dtype == jnp.bfloat16
    expected = FUNCTIONS[name][1](*wide(x, scale, bias), mask)
    np.testing.assert_allclose(np.asarray(out, float), expected, rtol=2**-8, atol=1e-6)


def test_arguments_that_do_not_fit():
    x = jnp.ones((2, 3, 6))
    with pytest.raises(ValueError, match="4 groups do not divide 6 features"):
        group_norm(x, groups=4)
    with pytest.raises(ValueError, match="must include the last"):
        group_norm(x, groups=2, axis=1)
    for options in ({"group_size": 2}, {"num_groups": None}):
        with pytest.raises(ValueError, match="one of num_groups and group_size"):
            rn.GroupNorm(**options).init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="groups of 4 do not divide 6"):
        rn.GroupNorm(num_groups=None, group_size=4).init(jax.random.key(0), x)


# --- flax.linen ---

PAIRS = {"GroupNorm": (rn.GroupNorm, nn.GroupNorm), "BatchNorm": (rn.BatchNorm, nn.BatchNorm)}


@pytest.mark.parametrize("name", PAIRS)
def test_fields_of_flax_are_fields_of_ours_with_the_same_defaults(name):
    ours, flax = ({f.name: f for f in dataclasses.fields(m)} for m in PAIRS[name])
    assert list(flax) == list(ours)  # in order, as they may be given by position
    for field in set(flax) - {"parent", "name", "use_fast_variance"}:
        if field.endswith("_init"):
            made = [f[field].default(jax.random.key(0), (3,), jnp.float32) for f in (ours, flax)]
            np.testing.assert_array_equal(*made)
        else:
            assert ours[field].default == flax[field].default, field


OTHERS = pytest.mark.table
VARIANTS = [
    ("GroupNorm", {"num_groups": 3}, {}),
    ("GroupNorm", {"num_groups": None, "group_size": 2, "use_bias": False}, {}),
    ("GroupNorm", {"num_groups": 2, "reduction_axes": (0, -1), "epsilon": 0.1}, {}),
    ("BatchNorm", {"use_running_average": False, "momentum": 0.7}, {}),
    (
        "BatchNorm",
        {"axis": (1, 2), "use_scale": False, "epsilon": 0.3},
        {"use_running_average": False},
    ),
    ("BatchNorm", {"axis": 1}, {"use_running_average": True}),
]


@pytest.mark.parametrize("masked", every([False, True], [True]))
@pytest.mark.parametrize(
    ("name", "fields", "call"),
    [
        pytest.param(*variant, marks=() if variant in (VARIANTS[0], VARIANTS[3]) else OTHERS)
        for variant in VARIANTS
    ],
    ids=str,
)
def test_equal_to_flax(name, fields, call, masked):
    x, _, _, mask, weights = case()
    mask = np.broadcast_to(mask, x.shape) if masked else None
    ours, flax = (module(**fields) for module in PAIRS[name])
    start = [m.init(jax.random.key(0), x, **call) for m in (ours, flax)]
    assert jax.tree.structure(start[0]) == jax.tree.structure(start[1])
    jax.tree.map(np.testing.assert_array_equal, *start)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda p: rng.uniform(0.5, 2, p.shape).astype(p.dtype), start[0])
    cut = weights * (1 if mask is None else mask)

    def run(module):
        def loss(params, x):
            state = {**variables, "params": params}
            out, new = module.apply(state, x, mask=mask, mutable=["batch_stats"], **call)
            return (out * cut).sum(), (out * (cut != 0), new)

        return quick_jit(jax.grad(loss, (0, 1), has_aux=True))(variables["params"], x)

    found, expected = (jax.tree.leaves(run(m)) for m in (ours, flax))
    for ours_leaf, flax_leaf in zip(found, expected, strict=True):
        assert worst(ours_leaf, flax_leaf) <= 3e-6


def test_the_result_has_the_dtype_of_the_input_unless_one_is_given():
    x = jnp.asarray(case()[0], jnp.bfloat16)
    for module in (rn.GroupNorm(3), rn.BatchNorm(use_running_average=True)):
        out, variables = module.init_with_output(jax.random.key(0), x)
        assert out.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
        assert module.clone(dtype=jnp.float32).apply(variables, x).dtype == jnp.float32


# --- torch ---


@pytest.mark.table
def test_equal_to_torch_up_to_the_running_variance_which_torch_takes_unbiased():
    torch = pytest.importorskip("torch")
    x, scale, bias, _, weights = case((4, 5, 6))
    count = 4 * 5
    modules = {
        "group": (torch.nn.GroupNorm(3, 6, eps=1e-6), rn.GroupNorm(3)),
        "batch": (torch.nn.BatchNorm1d(6, momentum=0.3), rn.BatchNorm(False, momentum=0.7)),
    }
    for name, (theirs, ours) in modules.items():
        theirs.load_state_dict({"weight": torch.tensor(scale), "bias": torch.tensor(bias)}, False)
        leaf = torch.tensor(x, requires_grad=True)
        out = theirs(leaf.swapaxes(1, 2)).swapaxes(1, 2)
        out.backward(torch.tensor(weights))
        start = {**ours.init(jax.random.key(0), x), "params": {"scale": scale, "bias": bias}}

        def loss(x, params, ours=ours, start=start):
            state = {**start, "params": params}
            out, new = ours.apply(state, x, mutable=["batch_stats"])
            return (out * weights).sum(), (out, new)

        (dx, dp), (found, new) = quick_jit(jax.grad(loss, (0, 1), has_aux=True))(x, start["params"])
        assert worst(found, out.detach()) <= 1e-6
        assert worst(dx, leaf.grad) <= 3e-6
        assert worst(dp["scale"], theirs.weight.grad) <= 1e-6
        assert worst(dp["bias"], theirs.bias.grad) <= 1e-6
        if name == "batch":
            stats = new["batch_stats"]
            assert worst(stats["mean"], theirs.running_mean) <= 1e-6
            unbiased = 0.7 + (np.asarray(stats["var"]) - 0.7) * count / (count - 1)
            assert worst(unbiased, theirs.running_var) <= 1e-6


# --- Running statistics ---


def test_running_statistics_move_by_their_definition_and_are_used():
    x, scale, bias, mask, _ = case()
    module = rn.BatchNorm(momentum=0.9)
    variables = module.init(jax.random.key(0), x, True)
    variables = {**variables, "params": {"scale": scale, "bias": bias}}
    mean, variance = np.zeros(6), np.ones(6)
    for seed in range(3):
        x = case(seed=seed)[0]
        poisoned = np.where(mask, x, np.nan)
        _, new = module.apply(variables, poisoned, False, mask=mask, mutable=["batch_stats"])
        variables = {**variables, **new}
        _, m, v = standardized(x.astype(float), mask, (0, 1), 0)
        mean, variance = 0.9 * mean + 0.1 * m.ravel(), 0.9 * variance + 0.1 * v.ravel()
        assert worst(new["batch_stats"]["mean"], mean) <= 1e-6
        assert worst(new["batch_stats"]["var"], variance) <= 1e-6
    out = module.apply(variables, poisoned, True, mask=mask)
    expected = (x.astype(float) - mean) / np.sqrt(variance + 1e-5) * scale + bias
    assert worst(out, np.where(mask, expected, 0)) <= 1e-6


def test_a_batch_without_a_valid_element_moves_nothing():
    x, _, _, mask, _ = case()
    module = rn.BatchNorm(use_running_average=False)
    variables = module.init(jax.random.key(0), x)
    _, new = module.apply(variables, x, mask=np.zeros_like(mask), mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], variables["batch_stats"])


# --- Devices ---


HALVES = [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("groups", every([None, HALVES], [HALVES]))
def test_devices_with_different_numbers_of_valid_tokens_count_rightly(groups):
    """Eight devices, one of them with no valid token, against the oracle over all valid rows."""
    rng = np.random.default_rng(3)
    x = rng.normal(rng.normal(size=(8, 1, 1, 1)) * 3, 2, (8, 2, 5, 3)).astype(np.float32)
    lengths = rng.integers(0, 6, (8, 2))
    lengths[5] = 0
    mask = np.arange(5) < lengths[..., None]
    scale, bias = rng.normal(0.5, 1, (2, 3)).astype(np.float32)
    weights = rng.normal(size=x.shape).astype(np.float32)
    module = rn.norms.get("batch").build(name="n", axis_name="devices")
    module = module.clone(axis_index_groups=groups, momentum=0.9, name=None)
    stats = module.init(jax.random.key(0), x[0])["batch_stats"]

    def device(params, x, mask, weights):
        def loss(params, x):
            out, new = module.apply(
                {"params": params, "batch_stats": stats}, x, mask=mask, deterministic=False,
                mutable=["batch_stats"],
            )  # fmt: skip
            return (out * weights).sum(), (out, new["batch_stats"])

        (dp, dx), (out, new) = jax.grad(loss, (0, 1), has_aux=True)(params, x)
        return out, dx, jax.lax.psum(dp, "devices"), new

    poisoned = np.where(mask[..., None], x, np.nan)
    run = jax.pmap(device, axis_name="devices", in_axes=(None, 0, 0, 0))
    out, dx, dp, new = run({"scale": scale, "bias": bias}, poisoned, mask, weights)

    def whole(tree, x, part):
        return batch_oracle(x, tree["scale"], tree["bias"], mask[part][..., None])

    expected_dp = {"scale": 0, "bias": 0}
    for part in [slice(None)] if groups is None else [slice(0, 4), slice(4, 8)]:
        tree = {"x": wide(x[part])[0], "scale": scale, "bias": bias}
        assert worst(out[part], whole(tree, tree["x"], part)) <= 1e-6
        found = oracles.gradients(
            lambda t, part=part: (whole(t, t["x"], part) * weights[part]).sum(), tree
        )
        assert worst(dx[part], found["x"]) <= 3e-6
        expected_dp = {k: v + found[k] for k, v in expected_dp.items()}
        _, mean, variance = standardized(tree["x"], mask[part][..., None], (0, 1, 2), 0)
        for device_new in zip(new["mean"][part], new["var"][part], strict=True):
            assert worst(device_new[0], 0.1 * mean.ravel()) <= 1e-6
            assert worst(device_new[1], 0.9 + 0.1 * variance.ravel()) <= 1e-6
        for leaf in new.values():  # to the bit: the trainer asks for it
            assert len({np.asarray(row).tobytes() for row in leaf[part]}) == 1
    for key, leaf in expected_dp.items():
        assert worst(np.asarray(dp[key])[0], leaf) <= 3e-6


@pytest.mark.table
def test_group_norm_over_devices_counts_masked_positions_rightly():
    x, scale, bias, _, _ = case((2, 8, 6))
    mask = (np.arange(8) < np.array([[3], [8]]))[..., None]
    shards = x.reshape(2, 4, 2, 6).swapaxes(0, 1), mask.reshape(2, 4, 2, 1).swapaxes(0, 1)
    module = rn.GroupNorm(3, axis_name="i")
    params = {"params": {"scale": scale, "bias": bias}}
    out = jax.vmap(lambda x, m: module.apply(params, x, mask=m), axis_name="i")(*shards)
    found = np.asarray(out).swapaxes(0, 1).reshape(x.shape)
    assert worst(found, group_oracle(*wide(x, scale, bias), mask, 3)) <= 1e-6


# --- Rows of the table ---


def test_every_row_across_rows_is_tested():
    assert {row.name for row in ROWS} == set(TESTED)
    for row in ROWS:
        assert {"mask", "deterministic"} <= set(row.context)
        assert row.state


@pytest.mark.table
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_called_with_a_mask_of_positions(row):
    x, scale, bias, mask, _ = case()
    module = row.build(name="n", epsilon=0.3, scale_init=0.25, param_dtype=jnp.bfloat16)
    assert (module.epsilon, module.param_dtype) == (0.3, jnp.bfloat16)
    variables = module.init(jax.random.key(0), x, mask=mask[..., 0], deterministic=True)
    np.testing.assert_array_equal(variables["params"]["scale"], np.full(6, 0.25))
    assert not any(jax.tree.leaves(decay_mask({"n": variables["params"]})))
    assert row.build(name="n").epsilon == row.epsilon
    module = row.build(name="n")
    variables = {**module.init(jax.random.key(0), x), "params": {"scale": scale, "bias": bias}}
    out, new = module.apply(
        variables, x, mask=mask[..., 0], deterministic=False, mutable=["batch_stats"]
    )
    if row.name == "batch":
        assert worst(out, batch_oracle(*wide(x, scale, bias), mask)) <= 1e-6
    still = module.apply({**variables, **new}, x, mask=mask[..., 0], deterministic=True)
    one = module.apply({**variables, **new}, x[:1], mask=mask[:1, :, 0], deterministic=True)
    np.testing.assert_allclose(one[0], still[0], rtol=1e-6, atol=1e-6)  # other rows do not matter
