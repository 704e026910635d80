"""Attention against the oracle, rotary positions by their defining property, and masks."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import quick_jit, worst
from tiers import every

from resnorm_jax import masked_attention
from resnorm_jax.ops.attention import choose_attention, chunks, rotate
from resnorm_jax.ops.masks import attention_mask, zero_padding


def heads(seed=0, keys=6):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(2, length, 3, 4)).astype(np.float32) for length in (5, keys, keys)]


def random_mask(shape, seed=0):
    mask = np.random.default_rng(seed).random(shape) < 0.6
    mask[..., 0] = True  # every query sees something
    return mask


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two queries of one head and one row at a time, so that five queries are chunks and a rest."""
    monkeypatch.setattr(chunks, "CHUNK", 2)
    monkeypatch.setattr(chunks, "WIDTHS", 0)
    monkeypatch.setattr(chunks, "SCORES", {"cpu": 2 * 6})


SHAPES = (None, (2, 1, 1, 6), (1, 1, 5, 6), (2, 3, 5, 6), (5, 6))


@pytest.mark.parametrize(
    "case",
    every(
        [(i, s) for i in ("xla", "chunked") for s in SHAPES],
        [("xla", None), ("xla", SHAPES[3]), ("chunked", SHAPES[1]), ("chunked", SHAPES[3])],
    ),
)
def test_values_and_gradients(case):
    implementation, shape = case
    q, k, v = heads()
    mask = None if shape is None else random_mask(shape)
    weights = np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

    @quick_jit
    def run(q, k, v):
        def attend(*a):
            return masked_attention(*a, mask, implementation=implementation)

        out, pullback = jax.vjp(attend, q, k, v)
        return out, pullback(jnp.asarray(weights))

    out, grads = run(q, k, v)
    assert worst(out, oracles.attention(*(a.astype(float) for a in (q, k, v)), mask)) < 1e-6
    expected = oracles.gradients(
        lambda t: (oracles.attention(t["q"], t["k"], t["v"], mask) * weights).sum(),
        {"q": q, "k": k, "v": v},
    )
    for found, want in zip(grads, expected.values(), strict=True):
        assert worst(found, want) < 2e-6


@pytest.mark.parametrize("implementation", every(["xla", "chunked"], ["chunked"]))
def test_a_query_that_may_look_at_nothing_gets_zero_and_has_no_gradient(implementation):
    q, k, v = map(jnp.asarray, heads())
    mask = np.ones((2, 1, 5, 6), bool)
    mask[0, 0, 2] = False
    mask[1] = False

    def loss(q, k, v):
        return (masked_attention(q, k, v, mask, implementation=implementation) ** 2).sum()

    value, grads = quick_jit(jax.value_and_grad(loss, (0, 1, 2)))(q, k, v)
    chex.assert_tree_all_finite((value, grads))
    assert not grads[0][0, 2].any()
    for gradient in grads:  # of a row whose queries all may look at nothing
        assert not gradient[1].any()
    out = masked_attention(q, k, v, mask, implementation=implementation)
    assert not out[0, 2].any()
    assert not out[1].any()
    assert np.abs(out[0, :2]).max() > 0


def test_the_result_has_the_dtype_of_the_query():
    q, k, v = (jnp.asarray(a, jnp.bfloat16) for a in heads())
    assert jax.eval_shape(masked_attention, q, k, v).dtype == jnp.bfloat16
    drop = partial(masked_attention, dropout_rate=0.5, dropout_key=jax.random.key(0))
    assert jax.eval_shape(drop, q, k, v).dtype == jnp.bfloat16


@pytest.mark.parametrize("implementation", every(["xla", "chunked"]))
def test_dropout_of_the_weights(implementation):
    q, k, v = map(jnp.asarray, heads())
    mask = random_mask((2, 1, 5, 6))
    plain = masked_attention(q, k, v, mask)
    off = masked_attention(q, k, v, mask, dropout_rate=0.5, dropout_key=None)
    np.testing.assert_array_equal(plain, off)

    @partial(quick_jit, static_argnums=1)
    def one(key, rate):
        return masked_attention(
            q, k, v, mask, dropout_rate=rate, dropout_key=key, implementation=implementation
        )

    tiny = one(jax.random.key(0), 1e-9)  # the other implementation, nothing dropped
    np.testing.assert_allclose(tiny, plain, rtol=1e-5, atol=1e-6)
    many = jax.vmap(lambda key: one(key, 0.2))(jax.random.split(jax.random.key(1), 1000))
    many, plain = np.asarray(many), np.asarray(plain)
    assert np.abs(many[0] - plain).max() > 0.01
    error = 5 * np.std(many, axis=0) / np.sqrt(1000)
    assert (np.abs(np.mean(many, axis=0) - plain) < error + 1e-4).all()


@pytest.mark.parametrize("shape", every(SHAPES))
def test_the_gradient_under_dropout(shape):
    """Against the oracle, told which weights were dropped: values show it, one key at a time."""
    q, k, v = heads()
    mask = None if shape is None else random_mask(shape)
    rate, weights = 0.4, np.random.default_rng(1).normal(size=q.shape).astype(np.float32)

    @quick_jit
    def run(q, k, v):
        def attend(*a):
            return masked_attention(
                *a, mask, dropout_rate=rate, dropout_key=jax.random.key(5), implementation="chunked"
            )

        out, pullback = jax.vjp(attend, q, k, v)
        shown = jax.vmap(lambda one: attend(q, k, jnp.broadcast_to(one[:, None, None], k.shape)))
        return out, pullback(jnp.asarray(weights)), shown(jnp.eye(6))[..., 0]

    out, grads, shown = run(q, k, v)
    kept = np.moveaxis(shown, 0, -1).swapaxes(1, 2) != 0  # [B, H, T, S]
    assert 0.2 < kept.mean() < 0.7

    def dropped(t):
        logits = np.einsum("bthk,bshk->bhts", t["q"], t["k"]) / 2
        e = np.exp(logits) * np.broadcast_to(True if mask is None else mask, logits.shape)
        probabilities = e / e.sum(-1, keepdims=True) * kept / (1 - rate)
        return np.einsum("bhts,bshk->bthk", probabilities, t["v"])

    inputs = {"q": q, "k": k, "v": v}
    assert worst(out, dropped({n: a.astype(float) for n, a in inputs.items()})) < 1e-6
    expected = oracles.gradients(lambda t: (dropped(t) * weights).sum(), inputs)
    for found, want in zip(grads, expected.values(), strict=True):
        assert worst(found, want) < 2e-6


@pytest.mark.parametrize("length", every([1, 2, 5], [1]))
def test_chunks_of_few_queries_and_keys_in_half_precision(length):
    q, k, v = (jnp.asarray(a[:, :length], jnp.bfloat16) for a in heads())
    weights = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), jnp.bfloat16)

    @partial(quick_jit, static_argnums=0)
    def run(dtype):
        def attend(*a):
            return masked_attention(*a, implementation="chunked")

        out, pullback = jax.vjp(attend, *(a.astype(dtype) for a in (q, k, v)))
        return (out, *pullback(weights.astype(dtype)))

    for half, whole in zip(run(jnp.bfloat16), run(jnp.float32), strict=True):
        assert half.dtype == jnp.bfloat16
        np.testing.assert_allclose(half.astype(jnp.float32), whole, rtol=0.05, atol=0.05)


def dot_product_attention(q, k, v, mask):
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")


@pytest.mark.table
@pytest.mark.parametrize("implementation", ["xla", "chunked"])
@pytest.mark.parametrize("wrapping", ["vmap", "scan", "remat", "pmap", "hessian"])
def test_inside_another_transformation(wrapping, implementation):
    """The gradients there are those of JAX's own attention there."""
    arrays = tuple(jnp.stack([a, 2 * a]) for a in map(jnp.asarray, heads()))
    mask = random_mask((2, 1, 5, 6))

    def found(attend):
        def loss(q, k, v):
            return (attend(q, k, v, mask) ** 3).sum()

        grads = jax.grad(loss, (0, 1, 2))
        wrapped = {
            "vmap": jax.vmap(grads),
            "scan": lambda *a: jax.lax.scan(lambda c, x: (c, grads(*x)), 0, a)[1],
            "remat": jax.vmap(jax.grad(jax.checkpoint(loss), (0, 1, 2))),
            "pmap": jax.pmap(grads),
            "hessian": lambda *a: jax.vmap(jax.jacfwd(grads))(*a)[0],
        }[wrapping]
        return jax.jit(wrapped)(*arrays) if wrapping != "pmap" else wrapped(*arrays)

    ours = found(partial(masked_attention, implementation=implementation))
    for a, b in zip(ours, found(dot_product_attention), strict=True):
        assert worst(a, b) < (3e-5 if wrapping == "hessian" else 1e-5)  # more sums, more rounding


@pytest.mark.parametrize(
    ("rows", "heads", "keys", "want"),
    [
        (16, 8, 1344, (1, 4)),
        (16, 8, 256, (2, 8)),
        (7, 3, 1344, (1, 3)),
        (4, 5, 1344, (1, 1)),
        (4, 8, 10**6, (1, 1)),
    ],
)
def test_so_many_scores_as_a_cache_holds(monkeypatch, rows, heads, keys, want):
    monkeypatch.undo()
    monkeypatch.setattr(chunks, "SCORES", {"cpu": 4 * 64 * 1344})
    assert chunks.parts_at_once(rows, heads, 64 * keys, "cpu") == want
    assert chunks.parts_at_once(rows, heads, 64 * 4096, "gpu") == (rows, heads)


@pytest.mark.table
@pytest.mark.parametrize("implementation", ["xla", "chunked"])
def test_every_kind_of_derivative(implementation):
    """Forward mode, and the product of a Hessian and a vector, are those of JAX's own attention."""
    q, k, v = map(jnp.asarray, heads())
    mask = random_mask((2, 1, 5, 6))
    rng = np.random.default_rng(3)
    direction = tuple(jnp.asarray(rng.normal(size=a.shape), jnp.float32) for a in (q, k, v))

    @partial(quick_jit, static_argnums=0)
    def derivatives(attend):
        def loss(*a):
            return (attend(*a, mask) ** 3).sum()

        forward = jax.jvp(loss, (q, k, v), direction)[1]
        hessian = jax.jvp(jax.grad(loss, (0, 1, 2)), (q, k, v), direction)[1]
        return forward, hessian

    found = derivatives(partial(masked_attention, implementation=implementation))
    want = derivatives(dot_product_attention)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        assert worst(a, b) < 1e-5


def test_the_memory_of_chunks_grows_with_the_length_and_not_with_its_square(monkeypatch):
    monkeypatch.undo()

    def memory(implementation, length):
        x = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)

        def loss(q, k, v):
            return masked_attention(q, k, v, implementation=implementation).sum()

        compiled = quick_jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory("chunked", 2048) < 2.2 * memory("chunked", 1024)
    assert memory("xla", 2048) > 2 * memory("xla", 1024)
    assert memory("chunked", 2048) < memory("xla", 2048) / 16


@pytest.mark.parametrize(
    ("queries", "keys", "backend", "want"),
    [
        (255, 255, "cpu", "xla"),
        (256, 256, "cpu", "chunked"),
        (32, 2048, "cpu", "chunked"),
        (1344, 1344, "gpu", "xla"),
        (4096, 4096, "tpu", "chunked"),
    ],
)
def test_chunks_are_taken_where_they_pay(queries, keys, backend, want):
    assert choose_attention(queries, keys, backend) == want


def test_an_implementation_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"implementation 'chunk'.*did you mean 'chunked'"):
        masked_attention(*map(jnp.asarray, heads()), implementation="chunk")


# --- Rotary positions ---


def rotate_oracle(x, positions, base=10_000.0):
    """Su et al. 2021, eq. 34, as products of complex numbers, pairs (i, i + Dh / 2)."""
    half = x.shape[-1] // 2
    z = x[..., :half] + 1j * x[..., half:]
    theta = base ** (-2 * np.arange(half) / x.shape[-1])
    angle = positions[..., None] * theta
    angle = angle[:, :, None] if positions.ndim == 2 else angle[None, :, None]
    turned = z * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], -1)


@pytest.mark.parametrize("base", [10_000.0, 100.0])
def test_rotation_against_complex_numbers(base):
    x = heads()[0]
    for positions in (np.arange(5), np.array([[0, 1, 2, 3, 4], [7, 9, 100, 3, 3]])):
        found = rotate(jnp.asarray(x), jnp.asarray(positions), base)
        assert worst(found, rotate_oracle(x.astype(float), positions, base)) < 1e-5


def test_rotated_products_depend_on_the_distance_only():
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in "qk")

    def product(i, j):
        turned = rotate(q, jnp.array([i])), rotate(k, jnp.array([j]))
        return float(jnp.vdot(*turned))

    assert product(5, 2) == pytest.approx(product(13, 10), abs=1e-4)
    assert product(0, 3) == pytest.approx(product(40, 43), abs=1e-4)
    assert abs(product(5, 2) - product(2, 5)) > 1e-2  # the direction counts
    assert abs(product(5, 2) - product(5, 3)) > 1e-2


def test_rotation_keeps_norms_and_leaves_position_zero():
    x = jnp.asarray(heads()[0])
    out = rotate(x, jnp.arange(5))
    np.testing.assert_allclose(np.linalg.norm(out, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)
    np.testing.assert_array_equal(out[:, 0], x[:, 0])
    assert np.abs(out[:, 1:] - x[:, 1:]).max() > 0.1
    assert rotate(x.astype(jnp.bfloat16), jnp.arange(5)).dtype == jnp.bfloat16


def test_an_odd_width_cannot_rotate():
    with pytest.raises(ValueError, match="even head width, not 3"):
        rotate(jnp.ones((1, 2, 1, 3)), jnp.arange(2))


# --- Masks ---


def test_padding_is_zeroed_with_its_gradient():
    x = np.array([[[1.0, 2.0], [np.nan, np.inf]], [[3.0, -1.0], [4.0, 5.0]]], np.float32)
    mask = np.array([[True, False], [True, True]])
    out, pullback = jax.vjp(lambda x: zero_padding(x, mask), jnp.asarray(x))
    np.testing.assert_array_equal(out, [[[1, 2], [0, 0]], [[3, -1], [4, 5]]])
    np.testing.assert_array_equal(
        pullback(jnp.full_like(out, 2))[0], 2.0 * mask[..., None] * np.ones(2)
    )
    tokens = jnp.array([[5, 6], [7, 8]])
    np.testing.assert_array_equal(zero_padding(tokens, mask), [[5, 0], [7, 8]])
    assert zero_padding(tokens, mask).dtype == tokens.dtype
    assert zero_padding(tokens, None) is tokens


@pytest.mark.parametrize("shape", [(5, 6), (2, 5, 6), (2, 3, 5, 6)])
def test_masks_join(shape):
    padding = random_mask((2, 6), 3)
    mask = random_mask(shape, 4)
    joined = attention_mask(jnp.asarray(padding), jnp.asarray(mask))
    full = {2: mask[None, None], 3: mask[:, None] if mask.ndim == 3 else None, 4: mask}[mask.ndim]
    want = np.broadcast_to(full, (2, 3, 5, 6)) & padding[:, None, None]
    assert not want.all()
    np.testing.assert_array_equal(np.broadcast_to(joined, (2, 3, 5, 6)), want)
    alone = attention_mask(None, jnp.asarray(mask))
    assert alone.ndim == 4
    np.testing.assert_array_equal(alone, full)


def test_a_padding_mask_alone_and_no_mask():
    padding = random_mask((2, 6), 3)
    np.testing.assert_array_equal(attention_mask(padding)[:, 0, 0], padding)
    assert attention_mask(None) is None
    for shape in ((6,), (1, 2, 3, 5, 6)):
        with pytest.raises(ValueError, match=f"has {len(shape)} dimensions"):
            attention_mask(None, np.ones(shape, bool))
