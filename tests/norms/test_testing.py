"""Every assertion of `resnorm_jax.testing` passes on right functions and fails on planted faults."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tiers import every

from resnorm_jax import layer_norm, rms_norm, std_layer_norm, testing

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(0.5, 1.5, (4, 8)), jnp.float32)
SCALE = jnp.asarray(RNG.uniform(0.5, 2, 8), jnp.float32)
WIDE = RNG.normal(0.5, 1.5, (2, 512))
LARGE_MEAN = jnp.asarray(RNG.normal(1e4, 1, (4, 512)), jnp.float32)
MASK = np.arange(8) < np.array([[8], [5], [1], [0]])


def fails(match):
    return pytest.raises(AssertionError, match=match)


# --- Planted faults ---


def one_pass(x, epsilon=1e-6):
    """The variance as ``E[x^2] - E[x]^2``, clipped at 0 as in flax."""
    mean = x.mean(-1, keepdims=True)
    variance = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)
    return (x - mean) / jnp.sqrt(variance + epsilon)


def half_statistics(x):
    mean = x.astype(jnp.bfloat16).mean(-1, keepdims=True).astype(x.dtype)
    return (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + 1e-6)


def custom_layer_norm(corrections):
    """Layer norm with a hand-written backward pass of which ``corrections`` terms are kept."""

    @jax.custom_vjp
    def norm(x):
        return forward(x)[0]

    def forward(x):
        centred = x - x.mean(-1, keepdims=True)
        inverse = 1 / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return centred * inverse, (centred * inverse, inverse)

    def backward(saved, g):
        normed, inverse = saved
        terms = g.mean(-1, keepdims=True), normed * (g * normed).mean(-1, keepdims=True)
        return ((g - sum(terms[:corrections])) * inverse,)

    norm.defvjp(forward, backward)
    return norm


@jax.custom_jvp
def wrong_tangent(x):
    return rms_norm(x)


@wrong_tangent.defjvp
def _(primals, tangents):
    return rms_norm(*primals), rms_norm(*primals) * 0 + tangents[0]


@jax.custom_jvp
def no_corrections(x):
    return layer_norm(x)


@no_corrections.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return layer_norm(x), t / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)


@jax.custom_jvp
def unsafe_second_derivative(x):
    """The first derivative is finite at zero rows; that of its root is not."""
    return x * 1.0


@unsafe_second_derivative.defjvp
def _(primals, tangents):
    (x,), (t,) = primals, tangents
    return x * 1.0, t * (1 + jnp.sqrt((x * x).sum(-1, keepdims=True)))


def root_at_zero(x):
    return x / (jnp.sqrt((x * x).mean(-1, keepdims=True)) + 1e-6)


def wrong_scale_gradient(x, scale):
    return rms_norm(x, scale + 1e-4 * (scale - jax.lax.stop_gradient(scale)))


def title(function):
    return function.__name__


# --- Shape and dtype ---


@pytest.mark.parametrize("norm", every([layer_norm, rms_norm, std_layer_norm], [rms_norm], title))
def test_shape_and_dtype(norm):
    dtypes = (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64)
    testing.assert_preserves_shape_and_dtype(norm, shape=(2, 3), dtypes=dtypes)


FAULTY_TYPES = {
    "float32 for bfloat16": (lambda x: rms_norm(x.astype(jnp.float32)), "bfloat16"),
    "float32 parameters": (lambda x: rms_norm(x) * SCALE, "bfloat16"),
    "lost axis": (lambda x: rms_norm(x)[0], "float32 input"),
    "overflow": (lambda x: x * 6e4 / 6e4 * 6e4, "output for float16 input is -?inf"),
}


@pytest.mark.parametrize("fault", every(FAULTY_TYPES, ["lost axis"]))
def test_shape_and_dtype_faults(fault):
    fn, message = FAULTY_TYPES[fault]
    with fails(message):
        testing.assert_preserves_shape_and_dtype(fn)


# --- Symmetries ---


@pytest.mark.table
def test_shift():
    testing.assert_shift_invariant(layer_norm, X)
    testing.assert_shift_invariant(layer_norm, X, shift=8192.0, tolerance=1e-6)
    testing.assert_shift_invariant(one_pass, X, shift=1.0)


def test_shift_faults():
    with fails(r"fn\(x \+ 64\) against fn\(x\): off by .* at index \(\d, \d\)"):
        testing.assert_shift_invariant(rms_norm, X)
    with fails("off by"):
        testing.assert_shift_invariant(one_pass, X, shift=8192.0)


@pytest.mark.parametrize("norm", every([layer_norm, rms_norm, std_layer_norm], [rms_norm], title))
def test_scale(norm):
    testing.assert_scale_invariant(norm, X)


def test_scale_faults():
    for fault in (partial(rms_norm, epsilon=1e-2), lambda x: x - x.mean(-1, keepdims=True)):
        with fails(r"fn\(0.5 x\) against fn\(x\)"):
            testing.assert_scale_invariant(fault, X)


# --- Digits ---


@pytest.mark.table
def test_float64():
    testing.assert_matches_float64(layer_norm, oracles.layer_norm, X)
    testing.assert_matches_float64(layer_norm, oracles.layer_norm, LARGE_MEAN, 1e-6)
    testing.assert_matches_float64(std_layer_norm, oracles.std_layer_norm, X)
    half = X.astype(jnp.bfloat16)
    testing.assert_matches_float64(rms_norm, oracles.rms_norm, half, 2**-8)
    testing.assert_matches_float64(one_pass, oracles.layer_norm, X, 1e-5)  # a good case hides it


FAULTY_DIGITS = {
    "one-pass variance": (one_pass, oracles.layer_norm, LARGE_MEAN),
    "bfloat16 statistics": (half_statistics, oracles.layer_norm, X),
    "unbiased deviation": (std_layer_norm, oracles.layer_norm, X),
    "epsilon outside the root": (root_at_zero, oracles.rms_norm, X * 1e-3),
    "nan": (lambda x: rms_norm(x).at[1, 2].set(jnp.nan), oracles.rms_norm, X),
    "shape": (lambda x: rms_norm(x)[:1], oracles.rms_norm, X),
}


@pytest.mark.parametrize("fault", every(FAULTY_DIGITS, ["nan"]))
def test_float64_faults(fault):
    with fails(r"float32 output against the float64 oracle: (off by .*found|shape)"):
        testing.assert_matches_float64(*FAULTY_DIGITS[fault], tolerance=1e-4)


def test_the_message_names_the_place():
    with fails(r"off by inf .* at index \(1, 2\): found nan, expected .* 3% of the elements"):
        testing.assert_matches_float64(*FAULTY_DIGITS["nan"])


# --- Gradients ---


@pytest.mark.table
def test_gradients():
    testing.assert_gradients(layer_norm, X, SCALE, -SCALE)


@pytest.mark.table
def test_gradients_of_trees_and_of_reverse_mode_alone():
    testing.assert_gradients(lambda tree: rms_norm(tree["x"], tree["g"]), {"x": X, "g": SCALE})
    for x in (X, WIDE):
        testing.assert_gradients(custom_layer_norm(2), x, modes=("reverse",))


@pytest.mark.parametrize("corrections", every([0, 1], [1]))
@pytest.mark.parametrize("x", every([X, WIDE], [WIDE], lambda x: str(x.shape[-1])))
def test_a_missing_correction_term_is_found_at_any_width(corrections, x):
    with fails(r"reverse mode, argument \[0\]: off by"):
        testing.assert_gradients(custom_layer_norm(corrections), x, modes=("reverse",))


@pytest.mark.table
def test_chex_would_miss_it_at_width_512():
    """Why this is not `chex.assert_numerical_grads`, whose tolerance grows with the size."""
    weights = jnp.asarray(RNG.normal(size=WIDE.shape), jnp.float32)

    def loss(x):
        return (no_corrections(x) * weights).sum()

    chex.assert_numerical_grads(loss, (jnp.asarray(WIDE, jnp.float32),), order=1)
    with fails("reverse mode"):
        testing.assert_gradients(no_corrections, WIDE)


def test_a_gradient_that_is_stopped_is_found_and_not_by_chex():
    def stopped(x):
        return 0.5 * x + jax.lax.stop_gradient(0.5 * x)

    with fails("reverse mode"):
        testing.assert_gradients(stopped, X)
    with jax.enable_x64(True):
        chex.assert_numerical_grads(lambda x: stopped(x).sum(), (jnp.asarray(X),), order=1)


@pytest.mark.table
def test_gradient_faults():
    with fails(r"forward mode, argument \[0\]"):
        testing.assert_gradients(wrong_tangent, X, modes=("forward",))
    with fails(r"argument \[1\]: off by .*e-05 of .*tolerance 1e-06"):
        testing.assert_gradients(wrong_scale_gradient, X, SCALE)
    with fails("no forward mode"):
        testing.assert_gradients(custom_layer_norm(2), X)
    with fails("float32 for float64"):
        testing.assert_gradients(lambda x: rms_norm(x.astype(jnp.float32)), X)
    with fails("reverse mode"):
        testing.assert_gradients(lambda x: jax.lax.stop_gradient(rms_norm(x)), X)
    with fails("found nan"):
        testing.assert_gradients(root_at_zero, jnp.zeros((1, 4)))


# --- Padding ---


def masked_norm(x, mask, scale):
    return layer_norm(x, scale, mask=mask)


def mask_ignored(x, mask, scale):
    return layer_norm(x, scale)


def masked_by_product(x, mask, scale):
    return rms_norm(x * mask.astype(x.dtype), scale)  # NaN * 0 is NaN


def masked_afterwards(x, mask, scale):
    """Tokens: statistics run within a row, and the output is clean; the gradients are not."""
    return jnp.where(mask, rms_norm(x, scale), 0)


def leaks_a_gradient(x, mask, scale):
    clean = jnp.where(mask, x, 0)
    return layer_norm(clean, scale, mask=mask) + (x - jax.lax.stop_gradient(x)).sum()


def pooled(x, mask):
    return jnp.where(mask, x, 0).sum(-1) / jnp.maximum(mask.sum(-1), 1)


def test_padding():
    testing.assert_padding_safe(masked_norm, X, MASK, SCALE)


@pytest.mark.table
def test_padding_of_whole_rows_and_of_what_is_pooled():
    testing.assert_padding_safe(pooled, X, MASK)
    rows = np.array([True, False, True, True])[:, None]
    testing.assert_padding_safe(lambda x, mask: rms_norm(jnp.where(mask, x, 0)), X, rows)


ROWS = np.array([True, False, True, True])[:, None]
FAULTY_MASKS = {
    "ignored": (mask_ignored, MASK, "valid output with nan in masked positions"),
    "product": (masked_by_product, MASK, "valid output with nan"),
    "afterwards": (masked_afterwards, ROWS, r"gradient of (x|parameter 0) with nan"),
    "leak": (leaks_a_gradient, MASK, "nan"),
    "no padding": (masked_norm, np.ones((4, 8), bool), "no padding to check"),
}


@pytest.mark.parametrize("fault", every(FAULTY_MASKS, ["leak"]))
def test_padding_faults(fault):
    fn, mask, message = FAULTY_MASKS[fault]
    with fails(message):
        testing.assert_padding_safe(fn, X, mask, SCALE)


@pytest.mark.table
def test_padding_faults_of_finite_values():
    finite = {"fillers": (-1e4,)}
    with fails("valid output with -10000"):
        testing.assert_padding_safe(mask_ignored, X, MASK, SCALE, **finite)
    testing.assert_padding_safe(masked_by_product, X, MASK, SCALE, **finite)
    with fails("gradient of masked positions with -10000 there"):
        testing.assert_padding_safe(
            lambda x, mask: pooled(x, mask) + 1e-3 * (x - jax.lax.stop_gradient(x)).sum(-1),
            X,
            MASK,
            **finite,
        )


# --- Awkward rows ---


@pytest.mark.parametrize("width", every([1, 6], [6]))
@pytest.mark.parametrize("norm", every([layer_norm, rms_norm, std_layer_norm], [rms_norm], title))
def test_safe_rows(norm, width):
    testing.assert_safe_rows(norm, width)


@pytest.mark.table
def test_safe_rows_of_other_dtypes_and_of_ones_own():
    testing.assert_safe_rows(layer_norm, 5, dtype=jnp.bfloat16)
    testing.assert_safe_rows(root_at_zero, 2, rows={"harmless": np.ones(2)})


def deviation(x):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-6)


FAULTY_ROWS = {
    "root at zero": (root_at_zero, "gradient of a row that is zero is nan"),
    "no epsilon": (partial(rms_norm, epsilon=0.0), "output of a row that is zero is nan"),
    "deviation": (deviation, "gradient of a row that is zero is nan"),
    "second derivative": (unsafe_second_derivative, "second derivative of a row that is zero"),
    "cube": (lambda x: x**3 / (jnp.abs(x) ** 3 + 1), "output of a row that is huge is nan"),
    "fourth power": (lambda x: x * jnp.exp(x), "output of a row that is constant 1e4 is inf"),
}


@pytest.mark.parametrize("fault", every(FAULTY_ROWS, ["root at zero"]))
def test_safe_rows_faults(fault):
    fn, message = FAULTY_ROWS[fault]
    with fails(message):
        testing.assert_safe_rows(fn, 6)


# --- Transformations ---


@pytest.mark.table
def test_transforms():
    x = jnp.asarray(RNG.normal(size=(4, 2, 8)), jnp.float32)
    testing.assert_transforms_agree(partial(layer_norm, scale=SCALE), x)
    testing.assert_transforms_agree(rms_norm, x[:3].astype(jnp.bfloat16))


def remembers():
    """A Python side effect: a call sees what the one before it has left, a dead tracer."""
    seen = []

    def fn(x):
        seen.append(x.mean())
        return x - seen[max(0, len(seen) - 2)]

    return fn


def remembers_values():
    """The same with a number, taken where there is one."""
    seen = {}

    def fn(x):
        shape = seen.setdefault("shape", x.shape)
        return x / len(shape) if x.shape == shape else x

    return fn


def counts():
    calls = []

    def fn(x):
        calls.append(0)
        return rms_norm(x) * len(calls)

    return fn


def branches(x):
    return rms_norm(x) if float(x.sum()) > 0 else -rms_norm(x)


FAULTY_TRANSFORMS = {
    "axis from the front": (partial(layer_norm, axis=1), "output of vmap|vmap.* raised"),
    "statistics of the batch": (lambda x: x / jnp.abs(x).max(), r"output of vmap\(fn\)"),
    "a tracer kept": (remembers(), r"jit\(fn\) raised UnexpectedTracerError"),
    "a value kept": (remembers_values(), r"output of vmap\(fn\) against fn"),
    "a counter": (counts(), r"output of vjp\(fn\) against fn: off by 1"),
    "a branch on values": (branches, r"(vjp|jit)\(fn\) raised (Concretization|TracerBool)"),
}


@pytest.mark.parametrize("fault", every(FAULTY_TRANSFORMS, ["statistics of the batch"]))
def test_transforms_faults(fault):
    fn, message = FAULTY_TRANSFORMS[fault]
    x = jnp.asarray(RNG.normal(1, 1, (2, 3, 8)), jnp.float32)
    with fails(message):
        testing.assert_transforms_agree(fn, x)


def test_all_that_is_public_is_exported_and_documented():
    assert sorted(testing.__all__) == sorted(n for n in dir(testing) if n.startswith("assert_"))
    for name in testing.__all__:
        assert ">>> " in getattr(testing, name).__doc__
