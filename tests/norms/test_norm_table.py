"""Every row of the norms' table against its float64 oracle, its source's code and its relatives."""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import norm_oracles
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from norm_oracles import ORACLES
from oracles import quick_jit, worst, x64
from tiers import every, showing

import resnorm_jax as rn
from resnorm_jax import testing
from resnorm_jax.errors import UserError
from resnorm_jax.training.roles import decay_mask

# Norms with statistics over rows have a file of their own: test_batch_norms.py.
NAMES = tuple(row.name for row in rn.norms.rows() if not row.across_rows)
FLOAT32 = 5e-7  # of the largest element: a few roundings of 2^-24 = 6e-8
WIDTHS = ((7,), (1, 2, 64, 1000))  # by default the first ones
GRADIENT_WIDTHS = (2, 7, 64)
# Two elements in standard units are -1 and 1, whatever they are, up to epsilon: at width 2 the
# gradient is made of epsilon, and needs a large one.
WIDTH_2_EPSILON = 1.0
# Norms whose gradient is by definition not that of their values.
STOPPED = ("ada", "detach")
# Norms that see the size of a row: the gate is a function of it. (So does seed, but not at first.)
NOT_HOMOGENEOUS = ("rms_gated",)
# One row of each way in which a gradient is computed.
SECOND = ("layer", "layer_std", "rms", "rms_outside", "scale", "l2", "derf", "cubsign", "saturlog",
          "rms_gated", "seed")  # fmt: skip
every_norm = pytest.mark.parametrize("name", NAMES)
# Norms that have between them every set of parameters, with an epsilon and without.
KINDS = showing(NAMES, lambda name: [(ORACLES[name].epsilon is None, *ORACLES[name].parameters)])
each_kind = pytest.mark.parametrize("name", every(NAMES, KINDS))


def of_each_kind(names):
    """These norms as parameters; by default the first of each set of parameters."""
    traits = lambda name: [tuple(ORACLES[name].parameters)]  # noqa: E731
    return pytest.mark.parametrize("name", every(names, showing(names, traits)))


# The scale of an adaptive norm is the last half of a bias.
with_scale = [n for n in NAMES if {"scale", "modulation/bias"} & set(ORACLES[n].parameters)]


def case(name, width, rows=3):
    """Random x, parameters away from what they are at first, and a random cotangent."""
    rng = np.random.default_rng(width)
    parameters = {}
    for key, parameter in ORACLES[name].parameters.items():
        shape = parameter.shape(width)
        most = 0.6 if parameter.vector else 0.3
        moved = rng.uniform(0.1, most, shape) * rng.choice([-1, 1], shape) * parameter.size(width)
        parameters[key] = np.asarray(parameter.start(width) + moved, np.float32)
    x = rng.normal(0.5, 1.5, (rows, width)).astype(np.float32)
    for kink in norm_oracles.KINKS.get(name, ()):
        near = np.abs(distance(kink, x, parameters)) < 0.1
        x = np.where(near, x + np.float32(0.3) / parameters["alpha"], x)
    return x, parameters, rng.normal(size=x.shape).astype(np.float32)


def distance(kink, x, parameters):
    """From a kink of phi, on either side of 0: no gradient is defined on it, none is exact near."""
    return np.abs(parameters["alpha"] * x + parameters["shift"]) - kink


def wide(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(np.float64), tree)


def build(name, width=None, **options):
    if width == 2 and ORACLES[name].epsilon is not None:
        options["epsilon"] = WIDTH_2_EPSILON
    return Told(rn.norms.get(name).build(name="n", **options), ORACLES[name].context)


class Told:
    """A row's module that is told its context at each call."""

    def __init__(self, module, context):
        self.module = module
        self.context = {key: value.astype(np.float32) for key, value in context.items()}

    def init(self, key, x):
        return self.module.init(key, x, **self.context)

    def apply(self, variables, x):
        return self.module.apply(variables, x, **self.context)


def apply(module, parameters, x):
    return module.apply({"params": unflatten_dict(parameters, sep="/")}, x)


each_width = pytest.mark.parametrize("widths", every(WIDTHS, WIDTHS[:1]))


@functools.cache
def results(name, widths):
    """Value at every width, and value and cotangents where gradients are compared: one program."""

    def gradients(width, x, parameters, weights):
        module = build(name, width)
        out, pullback = jax.vjp(lambda x, p: apply(module, p, x), x, parameters)
        dx, rest = pullback(weights)
        return out, {"x": dx, **rest}

    @quick_jit
    def run(cases):
        values = {w: apply(build(name), p, x) for w, (x, p, _) in cases.items()}
        return values, {w: gradients(w, *cases[w]) for w in GRADIENT_WIDTHS if w in widths}

    return run({w: case(name, w) for w in widths})


# --- Coverage ---


def test_every_row_has_an_oracle_and_every_oracle_a_row():
    assert set(NAMES) == set(ORACLES)
    assert len(NAMES) >= 30


@every_norm
def test_the_line_for_people_names_what_the_oracle_has(name):
    row, oracle = rn.norms.get(name), ORACLES[name]
    words = set(re.findall("[a-z_]+", row.equation))
    assert ("eps" in words) == (oracle.epsilon is not None)
    assert row.epsilon == oracle.epsilon
    letters = {"scale": "g", "bias": "b", "alpha": "a", "shift": "s"}
    letters |= {"seed_alpha": "a", "seed_beta": "b"}
    own = {key for key in oracle.parameters if "/" not in key}  # not of an inner projection
    assert words & set(letters.values()) == {letters[key] for key in own}
    assert ("Dense" in row.equation) == (own != set(oracle.parameters))
    assert set(row.context) == set(oracle.context)


# --- Values ---


@each_width
@every_norm
def test_float32_is_within_a_few_roundings(name, widths):
    for width, found in results(name, widths)[0].items():
        x, parameters, _ = case(name, width)
        assert found.dtype == jnp.float32
        assert worst(found, ORACLES[name](*wide((x, parameters)))) <= FLOAT32, width


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16], ids=["dtype=None", "dtype=bfloat16"])
@pytest.mark.parametrize("name", every(NAMES, [*KINDS, "rms_cast_first"]))
def test_bfloat16_is_one_rounding(name, dtype):
    """Two for ``rms_cast_first``: of the normalized row, and of its product with the scale."""
    x, parameters, _ = case(name, 64)
    x = jnp.asarray(x, jnp.bfloat16)
    unit = 2**-8
    if name == "rms_cast_first":  # the scale would be rounded as well: take one that is
        parameters = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), parameters)
        unit *= 2
    out = apply(build(name, dtype=dtype), parameters, x)
    assert out.dtype == jnp.bfloat16
    expected = ORACLES[name](*wide((x, parameters)))
    error = np.abs(wide(out) - expected)
    assert np.all(error <= 1.01 * unit * np.abs(expected) + 1e-6)
    if name == "rms_cast_first":
        normed = rn.rms_norm(x)
        assert np.array_equal(out, normed * parameters["scale"])
        assert np.any(error > 0.51 * unit * np.abs(expected))  # two, and not one


@each_kind
def test_other_dtypes(name):
    x, parameters, _ = case(name, 7)
    expected = ORACLES[name](*wide((x, parameters)))
    half = apply(build(name, dtype=jnp.bfloat16), parameters, x)
    assert half.dtype == jnp.bfloat16
    assert worst(half, expected) <= 2**-8
    single = apply(build(name, dtype=jnp.float32), parameters, jnp.asarray(x, jnp.bfloat16))
    assert single.dtype == jnp.float32
    rounded = np.asarray(jnp.asarray(x, jnp.bfloat16)).astype(float)
    assert worst(single, ORACLES[name](rounded, wide(parameters))) <= FLOAT32


@of_each_kind([n for n in NAMES if ORACLES[n].epsilon is not None])
def test_epsilon_stands_where_the_equation_says(name):
    x, parameters, _ = case(name, 7)
    small = x * np.float32(0.1)
    for epsilon in (0.3, 1e-4):
        expected = ORACLES[name](*wide((small, parameters)), epsilon)
        module = build(name, epsilon=epsilon)
        found = quick_jit(lambda x, m=module: apply(m, parameters, x))(small)
        assert worst(found, expected) <= FLOAT32
    assert worst(apply(build(name), parameters, small), expected) > 1e-7 or name == "scale"
    if name == "scale":  # epsilon is the least length
        tiny = x * np.float32(1e-7)
        expected = ORACLES[name](*wide((tiny, parameters)))
        assert worst(apply(build(name), parameters, tiny), expected) <= FLOAT32


# --- Derivatives ---


def gradient_size(name, key, expected, x, parameters, weights):
    """Largest element of a gradient; for a scalar's, the sum of its terms' magnitudes.

    The rounding of a sum is relative to this and not to the sum itself, whose terms may cancel.
    """
    if key == "x" or ORACLES[name].parameters[key].vector:
        return np.abs(expected).max()
    step = 1e-30
    moved = {**parameters, key: parameters[key] + 1j * step}
    return np.abs(ORACLES[name](x.astype(complex), moved).imag / step * weights).sum()


@each_width
@every_norm
def test_gradients_of_the_input_and_of_each_parameter(name, widths):
    oracle = ORACLES[name]
    for width, (_, found) in results(name, widths)[1].items():
        x, parameters, weights = wide(case(name, width))
        for kink in norm_oracles.KINKS.get(name, ()):
            assert np.abs(distance(kink, x, parameters)).min() > 0.05
        epsilon = WIDTH_2_EPSILON if width == 2 else None
        expected = oracle.vjp(x, parameters, weights, epsilon)
        assert set(found) == set(expected)
        for key, leaf in found.items():
            error = np.abs(wide(leaf) - expected[key]).max()
            size = gradient_size(name, key, expected[key], x, parameters, weights)
            assert size > 1e-3, (width, key)  # the case can tell
            assert error <= FLOAT32 * size, (width, key, error / size)


@pytest.mark.parametrize("name", every(SECOND, SECOND[:1]))
def test_second_derivatives_are_those_of_the_gradient(name):
    x, parameters, weights = case(name, 4, rows=2)
    module = build(name)

    def gradient(x):
        pullback = jax.vjp(lambda x: apply(module, parameters, x), x)[1]
        return pullback(jnp.asarray(weights, x.dtype))[0]

    with x64():
        parameters = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), parameters)
    testing.assert_gradients(jax.jit(gradient), x, directions=1)


@pytest.mark.parametrize("name", every(NAMES, KINDS[:3]))
def test_awkward_rows_are_finite_to_second_order(name):
    """`exproot` has an infinite slope at 0; it is defined as 0 there, which makes it finite too."""
    _, parameters, _ = case(name, 6)
    if "shift" in parameters:
        parameters["shift"] = np.float32(0)  # so that phi is taken at 0
    testing.assert_safe_rows(jax.jit(lambda x: apply(build(name), parameters, x)), 6)


@of_each_kind([n for n in NAMES if "alpha" in ORACLES[n].parameters])
def test_pointwise_norms_at_0_and_far_out(name):
    """The slope at 0, which a careless odd function loses; the bound, where squares overflow."""
    _, parameters, _ = case(name, 3)
    parameters["shift"] = np.float32(0)
    if "shift" not in ORACLES[name].parameters:
        del parameters["shift"]
    norm, oracle = functools.partial(apply, build(name), parameters), ORACLES[name]
    step = np.full((1, 3), 1e-6)
    slope = (oracle(step, wide(parameters)) - oracle(-step, wide(parameters))) / 2e-6
    if name == "exproot":  # infinite, and defined as 0
        slope = np.zeros((1, 3))
    found = jax.vjp(norm, jnp.zeros((1, 3)))[1](jnp.ones((1, 3)))[0]
    np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-5)
    far = np.array([[1e6, -1e15, 1e25]], np.float32)
    assert worst(norm(far), oracle(*wide((far, parameters)))) <= FLOAT32


@each_kind
def test_a_zero_row_gives_the_bias_or_phi_of_the_shift(name):
    _, parameters, _ = case(name, 6)
    zeros = np.zeros((1, 6))
    expected = ORACLES[name](zeros, wide(parameters))
    found = quick_jit(lambda x: apply(build(name), parameters, x))(zeros.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# --- Parameters ---


@each_kind
def test_initial_parameters_are_as_the_equation_says(name):
    for width in (1, 7):
        x = case(name, width)[0]
        made = quick_jit(build(name).init)(jax.random.key(0), x)
        found = flatten_dict(made.get("params", {}), sep="/")
        oracle = ORACLES[name].parameters
        assert set(found) == set(oracle)
        for key, leaf in found.items():
            assert leaf.shape == oracle[key].shape(width), key
            assert leaf.dtype == jnp.float32
            if oracle[key].first is not None:
                np.testing.assert_allclose(leaf, oracle[key].first(width), rtol=1e-7)


@every_norm
def test_parameters_take_the_dtype_asked_for(name):
    module = build(name, param_dtype=jnp.bfloat16)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.ones((2, 3)))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(variables))


@of_each_kind(with_scale)
def test_a_first_scale_of_0_leaves_nothing_but_the_bias(name):
    module = build(name, scale_init=0.0)
    x = case(name, 7)[0]
    made = quick_jit(module.init)(jax.random.key(0), x)
    parameters = flatten_dict(made["params"], sep="/")
    out = quick_jit(functools.partial(apply, module))(parameters, x)
    assert not np.asarray(out).any()
    if "bias" in parameters:
        parameters["bias"] = jnp.linspace(-1, 1, 7)
        out = quick_jit(functools.partial(apply, module))(parameters, x)
        np.testing.assert_array_equal(out, np.broadcast_to(parameters["bias"], x.shape))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in with_scale])
def test_a_first_scale_for_a_norm_without_is_an_error(name):
    with pytest.raises(UserError, match=f"^norm: '{name}' has no scale"):
        build(name, scale_init=0.0)


@pytest.mark.parametrize("name", [n for n in NAMES if ORACLES[n].epsilon is None])
def test_epsilon_for_a_norm_without_is_an_error(name):
    with pytest.raises(UserError, match=f"norm_epsilon: norm '{name}' has no epsilon"):
        build(name, epsilon=1e-5)


@every_norm
def test_what_decays(name):
    oracle = ORACLES[name].parameters
    found = decay_mask({"n": unflatten_dict(case(name, 3)[1], sep="/")})["n"]
    assert flatten_dict(found, sep="/") == {key: p.decays for key, p in oracle.items()}
    assert decay_mask({"n": {"kernel": 1}}) == {"n": {"kernel": True}}  # the mask can tell


@each_kind
def test_no_warnings(name):
    x, parameters, _ = case(name, 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        apply(build(name), parameters, x)


# --- Relatives ---


def at_first(name, x):
    module = build(name)
    return quick_jit(lambda x: module.apply(module.init(jax.random.key(0), x), x))(x)


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        ("rms_zero_centred", "rms"),
        pytest.param("rms_input_scaled", "rms", marks=pytest.mark.table),
        pytest.param("rms_cast_first", "rms", marks=pytest.mark.table),
        pytest.param("rms_plain", "rms", marks=pytest.mark.table),
        pytest.param("layer_zero_centred", "layer", marks=pytest.mark.table),
        pytest.param("layer_no_bias", "layer", marks=pytest.mark.table),
        pytest.param("layer_plain", "layer", marks=pytest.mark.table),
        ("seed", "rms"),
        ("ada_layer", "layer"),
        pytest.param("ada_rms", "rms", marks=pytest.mark.table),
    ],
)
def test_equal_at_first(name, relative):
    x = case(name, 16)[0]
    np.testing.assert_array_equal(at_first(name, x), at_first(relative, x))


def test_lengths_differ_by_constants():
    """With unit parameters: l2 sqrt(D) = scale = rms = rms_outside, as epsilon goes to 0."""
    x = case("l2", 16)[0]
    for other in (at_first("l2", x) * 4, at_first("scale", x), at_first("rms_outside", x)):
        assert worst(other, at_first("rms", x)) <= 2e-6


def test_rms_partial_reads_the_first_features_only():
    x = case("rms_partial", 64)[0]
    moved = x.copy()
    moved[:, 4:] *= 7
    out, other = at_first("rms_partial", x), at_first("rms_partial", moved)
    np.testing.assert_array_equal(out[:, :4], other[:, :4])
    assert worst((np.asarray(out)[:, :4] ** 2).mean(-1), np.ones(3)) <= 1e-6


def test_norms_with_a_mean_are_norms_of_the_centred_row():
    x = case("layer", 16)[0]
    centred = x - x.mean(-1, keepdims=True)
    assert worst(at_first("rms", centred), at_first("layer", x)) <= 1e-6


def test_dyt_is_linear_for_a_small_alpha():
    x, parameters, _ = case("dyt", 7)
    parameters["alpha"] = np.float32(1e-4)
    expected = parameters["scale"] * x * 1e-4
    found = apply(build("dyt"), {**parameters, "bias": np.zeros(7)}, x)
    assert worst(found, expected) <= 1e-6


@pytest.mark.parametrize("name", every(NAMES, KINDS[:3]))
def test_symmetries(name):
    """What subtracts the mean ignores a shift, what divides by a length ignores a factor."""
    x = jnp.asarray(case(name, 16)[0])
    norm = functools.partial(at_first, name)
    centred = "layer" in name or name in STOPPED
    statistical = ORACLES[name].epsilon is not None and name not in NOT_HOMOGENEOUS
    kinds = {testing.assert_shift_invariant: centred, testing.assert_scale_invariant: statistical}
    for assertion, holds in kinds.items():
        if holds:
            assertion(norm, x, tolerance=1e-4)
        else:
            with pytest.raises(AssertionError):
                assertion(norm, x, tolerance=1e-4)


# --- Stopped gradients ---


def test_detach_is_layer_std_forward_and_a_scaling_backward():
    x, _, weights = case("detach", 7)
    module = build("detach")
    out, pullback = jax.vjp(lambda x: apply(module, {}, x), x)
    plain = {"scale": np.ones(7, np.float32), "bias": np.zeros(7, np.float32)}
    assert worst(out, apply(build("layer_std", epsilon=1e-5), plain, x)) <= 1e-7
    std = x.astype(float).std(-1, ddof=1, keepdims=True)
    assert worst(pullback(weights)[0], weights / (std + 1e-5)) <= FLOAT32


def test_ada_is_a_slope_that_gives_no_gradient():
    x, _, weights = case("ada", 7)
    module = build("ada")
    out, pullback = jax.vjp(lambda x: apply(module, {}, x), x)
    z, pull_z = jax.vjp(lambda x: rn.std_layer_norm(x, epsilon=1e-5), x)
    assert worst(out, (1 - 0.1 * z) * z) <= FLOAT32
    assert worst(pullback(weights)[0], pull_z((1 - 0.1 * z) * weights)[0]) <= FLOAT32
    full = pull_z((1 - 0.2 * z) * weights)[0]  # with the gradient of phi
    assert worst(pullback(weights)[0], full) > 1e-2


# --- Neighbours: torch's modules, and the official code's formulas in torch ---


def torch_layer(torch, x, p):
    return torch.nn.functional.layer_norm(x, (16,), p["scale"], p["bias"], 1e-6)


def torch_rms(torch, x, p):
    return torch.nn.functional.rms_norm(x, (16,), p["scale"], 1e-6)


def torch_layer_std(torch, x, p):
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    return p["scale"] * (x - mean) / (std + 1e-6) + p["bias"]


def torch_scale(torch, x, p):
    return x * (p["scale"] / torch.norm(x, dim=-1, keepdim=True).clamp(min=1e-5))


def torch_rms_outside(torch, x, p):
    rms = x.norm(2, dim=-1, keepdim=True) * 16 ** (-1.0 / 2)
    return p["scale"] * (x / (rms + 1e-8))


def torch_ada(torch, x, p):
    mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
    x = x - mean
    slope = (1 / 10 * (x - x.mean(-1, keepdim=True)) / (std + 1e-5)).detach()
    return (x - x * slope) / (std + 1e-5)


def torch_detach(torch, x, p):
    mean, std = x.mean(-1, keepdim=True).detach(), x.std(-1, keepdim=True).detach()
    return (x - mean) / (std + 1e-5)


def torch_dyt(torch, x, p):
    return torch.tanh(p["alpha"] * x) * p["scale"] + p["bias"]


def torch_derf(torch, x, p):
    return torch.erf(p["alpha"] * x + p["shift"]) * p["scale"] + p["bias"]


PEERS = {
    "layer": torch_layer,
    "rms": torch_rms,
    "layer_std": torch_layer_std,
    "scale": torch_scale,
    "rms_outside": torch_rms_outside,
    "ada": torch_ada,
    "detach": torch_detach,
    "dyt": torch_dyt,
    "derf": torch_derf,
}


@pytest.mark.parametrize("name", every(PEERS, ["layer", "rms"]))
def test_equal_to_torch(name):
    torch = pytest.importorskip("torch")
    x, parameters, weights = case(name, 16)
    module = build(name)
    out, pullback = jax.vjp(lambda x, p: apply(module, p, x), x, parameters)
    dx, found = pullback(weights)
    leaves = {k: torch.tensor(a, requires_grad=True) for k, a in {"x": x, **parameters}.items()}
    expected = PEERS[name](torch, leaves["x"], leaves)
    expected.backward(torch.tensor(weights))
    assert worst(out, expected.detach()) <= 1e-6
    for key, leaf in {"x": dx, **found}.items():
        error = np.abs(wide(leaf) - wide(leaves[key].grad)).max()
        size = gradient_size(name, key, wide(leaf), *wide((x, parameters, weights)))
        assert error <= 1e-6 * size, key


def test_torch_modules_have_the_same_parameters_at_first():
    torch = pytest.importorskip("torch")
    x = case("layer", 16)[0]
    for name, module in {"layer": torch.nn.LayerNorm, "rms": torch.nn.RMSNorm}.items():
        expected = module(16, eps=1e-6)(torch.tensor(x)).detach()
        assert worst(at_first(name, x), expected) <= 1e-6
