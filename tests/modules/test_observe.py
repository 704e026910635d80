"""Attention weights and stream gradients out of any stack, against independent computation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit
from tiers import every

from resnorm_jax import TransformerDecoder, TransformerEncoder, arrangements
from resnorm_jax.modules.attention import MultiHeadAttention
from resnorm_jax.modules.hooks import (
    PERTURBATIONS,
    euclidean_norm,
    stream_gradients,
    zero_observers,
)
from resnorm_jax.ops.attention import attention_weights, masked_attention

B, L, D, H, N = 2, 5, 8, 2, 3
VALID = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], bool)
# One of each make: segments, parallel groups, two attentions, mixed values, shaped, many streams.
SOME = (
    "pre_ln", "mix_ln", "parallel_two_norms", "sandwich_order", "value_residual", "shaped_attention",
    "mhc", "resi_dual", "denseformer", "ngpt",
)  # fmt: skip


def encoder(name="pre_ln", **options):
    return TransformerEncoder(**{"depth": N, "heads": H, "arrangement": name} | options)


def inputs(seed=0):
    return np.random.default_rng(seed).normal(size=(B, L, D)).astype(np.float32)


def random_variables(model, x, *args):
    """Away from zero gates and equal layers."""
    made = jax.eval_shape(model.init, jax.random.key(0), x, *args)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: (rng.normal(0.3, 0.3, s.shape)).astype(s.dtype), made)


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("length", every([4, 5], [4]))
def test_weights_times_values_is_attention(length):
    rng = np.random.default_rng(3)
    q, k, v = (rng.normal(1.0, 3.0, (B, n, H, 3)) for n in (length, L, L))
    mask = np.broadcast_to(VALID[:, None, None], (B, H, length, L)).copy()
    mask[0, 1, 2] = False  # a query that may look at nothing
    scores = np.einsum("bthk,bshk->bhts", q, k) / np.sqrt(3)
    expected = softmax(np.where(mask, scores, -1e300)) * mask.any(-1, keepdims=True)
    weights = attention_weights(*(jnp.asarray(a, jnp.float32) for a in (q, k)), mask)
    np.testing.assert_allclose(weights, expected, atol=3e-6)
    out = masked_attention(*(jnp.asarray(a, jnp.float32) for a in (q, k, v)), mask)
    np.testing.assert_allclose(out, np.einsum("bhts,bshk->bthk", expected, v), atol=2e-5)


@pytest.mark.table
def test_weights_of_half_precision_are_float32():
    module = MultiHeadAttention(heads=H, dtype=jnp.bfloat16)
    x = jnp.asarray(inputs())
    (out, weights), _ = module.init_with_output(jax.random.key(0), x, return_weights=True)
    assert (out.dtype, weights.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


def projected(params, branch_in, weights, rotary_values=None):
    """A plain attention branch from its input, its weights and its parameters, in NumPy."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    v = np.einsum("bld,dhk->blhk", branch_in, p["value"]["kernel"]) + p["value"].get("bias", 0)
    y = np.einsum("bhts,bshk->bthk", weights, v)
    return np.einsum("bthk,hkd->btd", y, p["out"]["kernel"]) + p["out"].get("bias", 0)


@pytest.mark.table
@pytest.mark.parametrize(
    "options",
    every(
        [
            {"unroll": N}, {"rotary": True}, {"remat": "full", "remat_every": 3}, {},
            {"remat": "full"}, {"query_key": "head"}, {"arrangement": "mix_ln", "depth": 4},
        ],
        [{}],
    ),
)  # fmt: skip
def test_weights_explain_each_branch_of_a_stack(options):
    model, x = encoder(options.pop("arrangement", "pre_ln"), **options), inputs()
    variables = random_variables(model, x)
    call = partial(model.apply, return_intermediates=True)
    out, named = quick_jit(partial(call, attention_weights=True))(variables, x, VALID)
    plain, before = quick_jit(call)(variables, x, VALID)
    np.testing.assert_allclose(out, plain, rtol=2e-6, atol=2e-6)
    assert set(named) - set(before) == {"attention/weights"}
    weights = named["attention/weights"]
    assert weights.shape == (model.depth, B, H, L, L)
    assert (weights[:, 1, :, :, 3:] == 0).all()
    params = variables["params"]
    stacks = [params[k] for k in sorted(params) if k.startswith("layers")]
    branches = [jax.tree.map(lambda a, i=i: a[i], s["attention"]["branch"]) for s in stacks
                for i in range(len(jax.tree.leaves(s)[0]))]  # fmt: skip
    for n, branch in enumerate(branches):
        if "norm_after" in before:
            continue
        expected = projected(branch, named["attention/branch_in"][n], weights[n])
        np.testing.assert_allclose(named["attention/branch_out"][n], expected, atol=3e-5)


def test_weights_without_intermediates_change_nothing():
    model, x = encoder(), inputs()
    variables = random_variables(model, x)
    plain = jax.make_jaxpr(model.apply)(variables, x)
    assert str(jax.make_jaxpr(partial(model.apply, attention_weights=True))(variables, x)) == str(
        plain
    )


@pytest.mark.parametrize("name", every(SOME, ["mix_ln", "mhc"]))
def test_every_make_of_stack_gives_weights(name):
    model, x = encoder(name, depth=4), inputs()
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    call = partial(model.apply, return_intermediates=True, attention_weights=True)
    _, named = jax.eval_shape(call, variables, x, VALID)
    layers = named["stream_in"].shape[0]
    found = {k: v.shape for k, v in named.items() if k.endswith("weights")}
    assert found
    assert layers == 4
    assert all(shape[1:] == (B, H, L, L) for shape in found.values())


@pytest.mark.table
def test_a_decoder_gives_both_kinds():
    model, x = TransformerDecoder(depth=2, heads=H), inputs()
    memory = inputs(1)[:, :3]
    call = partial(model.init_with_output, return_intermediates=True, attention_weights=True)
    (_, named), _ = quick_jit(call)(jax.random.key(0), x, memory)
    assert named["cross_attention/weights"].shape == (2, B, H, L, 3)
    above = np.triu_indices(L, 1)
    assert (np.asarray(named["attention/weights"])[..., above[0], above[1]] == 0).all()


@pytest.mark.table
def test_the_gradient_of_each_layers_stream_is_the_rest_of_the_stacks():
    """Run the layers after l alone, from the stream after l: plain differentiation gives the same."""
    model, x = encoder(), inputs()
    variables = random_variables(model, x)
    target = inputs(7)

    def loss(out):
        return jnp.sum(jnp.where(VALID[..., None], (out - target) ** 2, 0))

    found = stream_gradients(model, variables, loss, x, VALID)["stream"]
    _, named = model.apply(variables, x, VALID, return_intermediates=True)
    params = variables["params"]
    condition = None
    for level in range(N):
        rest = encoder(depth=N - level)
        cut = {**params, "layers": jax.tree.map(lambda a, n=level: a[n:], params["layers"])}
        start = named["stream_in"][level]
        direct = jax.grad(
            lambda s, m=rest, c=cut: loss(m.apply({"params": c}, s, VALID, condition=condition))
        )(start)
        np.testing.assert_allclose(found[level], direct, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", [*every(["mix_ln"]), *(pytest.param(n, marks=pytest.mark.slow) for n in SOME[2:])]
)
def test_taps_are_the_norms_of_the_gradients(name):
    model, x = encoder(name, depth=4), inputs()
    variables = random_variables(model, x)

    def loss(out):
        return jnp.sum(jnp.where(VALID[..., None], out, 0) ** 3)

    run = partial(stream_gradients, model)
    whole = quick_jit(partial(run, loss=loss))(variables, x=x, mask=VALID)
    norms = quick_jit(partial(run, loss=loss, norms=True))(variables, x=x, mask=VALID)
    assert set(whole) == set(norms)
    for key, gradient in whole.items():
        assert gradient.shape[0] == norms[key].shape[0] == 5
        expected = np.sqrt((np.asarray(gradient, np.float64) ** 2).reshape(5, -1).sum(1))
        np.testing.assert_allclose(norms[key], expected, rtol=1e-4, atol=1e-12)
    assert max(float(n[0]) for n in norms.values()) > 0


@pytest.mark.table
def test_many_streams_have_a_gradient_each():
    model, x = encoder("hyper_connections"), inputs()
    variables = random_variables(model, x)
    found = quick_jit(lambda v, x: stream_gradients(model, v, jnp.sum, x))(variables, x)
    (gradient,) = found.values()
    assert gradient.ndim == 5
    assert gradient.size > (N + 1) * x.size


@pytest.mark.parametrize("options", every([{"remat": "full", "remat_every": 3}, {"unroll": N}]))
def test_gradients_do_not_depend_on_how_the_loop_runs(options):
    x = inputs()
    variables = random_variables(encoder(), x)
    one, other = (
        quick_jit(lambda v, x, m=m: stream_gradients(m, v, lambda y: jnp.sum(y**2), x))(
            variables, x
        )["stream"]
        for m in (encoder(), encoder(**options))
    )
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.table
def test_a_perturbation_is_added_after_its_layer():
    model, x = encoder("none", depth=2), inputs()
    variables = random_variables(model, x)
    zeros = zero_observers(model, variables, x, collection=PERTURBATIONS)
    assert set(zeros) == {"at_start", "layers"}
    moved = jax.tree.map(lambda a: a, zeros)
    moved["layers"]["after"]["stream"] = zeros["layers"]["after"]["stream"].at[1, 0, 2, 3].set(2.0)
    change = model.apply({**variables, PERTURBATIONS: moved}, x) - model.apply(variables, x)
    expected = np.zeros((B, L, D))
    expected[0, 2, 3] = 2.0
    np.testing.assert_allclose(change, expected, atol=1e-5)


def test_initialization_makes_no_such_variables():
    for name in ("pre_ln", "mhc"):
        made = jax.eval_shape(encoder(name).init, jax.random.key(0), inputs())
        assert set(made) == {"params"}


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_norms_neither_vanish_nor_overflow(size):
    x = np.random.default_rng(0).normal(size=(3, 7))
    expected = size * np.sqrt((x**2).sum(1))
    scaled = jnp.asarray((x * size).astype(np.float32))
    np.testing.assert_allclose(euclidean_norm(scaled, axis=1), expected, rtol=1e-5)
    assert euclidean_norm(jnp.zeros((2, 0))) == 0
    assert euclidean_norm(jnp.zeros(3)) == 0


def test_all_arrangements_are_covered_by_shape():
    assert set(SOME) <= set(arrangements.names())
