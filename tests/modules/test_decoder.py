"""The decoder: equal to torch's, causal, blind to padding in both sequences, with its constants."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit, worst
from tiers import every, one_and_many

from resnorm_jax import (
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    arrangements,
)

B, T, S, D, H, F = 2, 4, 3, 8, 2, 12
VALID = np.array([[True] * 4, [True, True, False, False]])
SEEN = np.array([[True, True, False], [True, False, False]])
SUBLAYERS = ("attention", "cross_attention", "feed_forward")


def inputs(seed, length):
    return np.random.default_rng(seed).normal(size=(B, length, D)).astype(np.float32)


def random_like(tree, seed=0):
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = {"scale": 1.0, "gate": 0.7}.get(str(path[-1].key), 0.0)
        return (centre + rng.normal(0, 0.4, leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, tree)


def model(arrangement="pre_ln", **options):
    return TransformerDecoder(
        **{"depth": 2, "heads": H, "mlp_width": F, "arrangement": arrangement} | options
    )


def parameters(module, *args):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    return random_like(shapes["params"])


def from_torch(layer, norms):
    """Lay out torch's parameters as ours."""
    v = {name: p.detach().numpy() for name, p in layer.named_parameters()}

    def attention(name):
        def part(i, kernel):
            rows = slice(i * D, (i + 1) * D)
            if kernel:
                return v[f"{name}.in_proj_weight"][rows].T.reshape(D, H, D // H)
            return v[f"{name}.in_proj_bias"][rows].reshape(H, -1)

        tree = {
            role: {"kernel": part(i, True), "bias": part(i, False)}
            for i, role in enumerate(("query", "key", "value"))
        }
        out = v[f"{name}.out_proj.weight"].T.reshape(H, D // H, D)
        return {**tree, "out": {"kernel": out, "bias": v[f"{name}.out_proj.bias"]}}

    branches = {
        "attention": attention("self_attn"),
        "cross_attention": attention("multihead_attn"),
        "feed_forward": {
            ours: {"kernel": v[f"{theirs}.weight"].T, "bias": v[f"{theirs}.bias"]}
            for ours, theirs in (("fc1", "linear1"), ("fc2", "linear2"))
        },
    }
    return {
        name: {
            "branch": branches[name],
            norms: {"scale": v[f"norm{n}.weight"], "bias": v[f"norm{n}.bias"]},
        }
        for n, name in enumerate(SUBLAYERS, 1)
    }


@pytest.mark.parametrize(
    ("arrangement", "norms"),
    [("post_ln", "norm_on_stream"), pytest.param("pre_ln", "norm_before", marks=pytest.mark.table)],
)
def test_equal_to_torch_with_all_masks(arrangement, norms):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = torch.nn.TransformerDecoderLayer(
        D,
        H,
        F,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=arrangement == "pre_ln",
    ).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    x, memory = inputs(0, T), inputs(1, S)
    weights = np.where(VALID[..., None], inputs(2, T), 0)
    tensors = [torch.tensor(z, requires_grad=True) for z in (x, memory)]
    expected = layer(
        *tensors,
        tgt_mask=torch.tensor(~np.tril(np.ones((T, T), bool))),
        tgt_key_padding_mask=torch.tensor(~VALID),
        memory_key_padding_mask=torch.tensor(~SEEN),
    )
    expected.backward(torch.tensor(weights))
    ours = TransformerDecoderLayer(heads=H, mlp_width=F, arrangement=arrangement, norm_epsilon=1e-5)
    params = from_torch(layer, norms)
    like = jax.eval_shape(ours.init, jax.random.key(0), x, memory)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda a: a.shape, like)

    @quick_jit
    def run(params, x, memory):
        def apply(params, x, memory):
            return ours.apply({"params": params}, x, memory, VALID, SEEN)

        out, pullback = jax.vjp(apply, params, x, memory)
        return out, pullback(jnp.asarray(weights))

    out, (grads, dx, d_memory) = run(params, x, memory)
    assert worst(np.asarray(out)[VALID], expected.detach().numpy()[VALID]) <= 1e-5
    assert worst(dx, tensors[0].grad) <= 1e-5
    assert worst(d_memory, tensors[1].grad) <= 1e-5
    found = from_torch_gradient(layer, norms)
    for (path, leaf), (_, want) in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree_util.tree_leaves_with_path(found),
        strict=True,
    ):  # fmt: skip
        if "'key']['bias" in jax.tree_util.keystr(path):
            continue
        assert worst(leaf, want) <= 1e-5, path


def from_torch_gradient(layer, norms):
    """Lay out torch's gradients as ours."""

    class Gradients:
        @staticmethod
        def named_parameters():
            return [(name, p.grad) for name, p in layer.named_parameters()]

    return from_torch(Gradients, norms)


def test_no_position_sees_a_later_one_and_each_sees_the_memory():
    decoder = model()
    x, memory = inputs(0, T), inputs(1, S)
    params = parameters(decoder, x, memory)

    @quick_jit
    def sensitivity(x, memory):
        apply = partial(decoder.apply, {"params": params})
        return jax.jacobian(apply, argnums=(0, 1))(x, memory)

    by_x, by_memory = (np.abs(j).sum((0, 2, 3, 5)) for j in sensitivity(x, memory))
    assert (by_x > 1e-6).tolist() == np.tril(np.ones((T, T), bool)).tolist()
    assert (by_memory > 1e-6).all()


@pytest.mark.table
def test_padding_of_either_sequence_changes_nothing():
    decoder = model("sandwich_ln")
    x, memory = inputs(0, T), inputs(1, S)
    params = parameters(decoder, x, memory)
    apply = quick_jit(partial(decoder.apply, {"params": params}))
    clean = apply(x, memory, VALID, SEEN)
    dirty_x = np.where(VALID[..., None], x, np.nan)
    dirty = apply(dirty_x, np.where(SEEN[..., None], memory, np.nan), VALID, SEEN)
    np.testing.assert_array_equal(np.asarray(clean)[VALID], np.asarray(dirty)[VALID])
    assert worst(np.asarray(clean)[VALID], np.asarray(apply(x, memory))[VALID]) > 1e-2


@pytest.mark.table
@pytest.mark.parametrize("name", every(arrangements.names(), one_and_many()[1:]))
def test_every_arrangement_decodes_alike_scanned_and_unrolled(name):
    decoder = model(name)
    x, memory = inputs(0, T), inputs(1, S)
    variables = jax.eval_shape(decoder.init, jax.random.key(0), x, memory)
    params = random_like(variables["params"])
    scanned, unrolled = (
        quick_jit(m.apply)({"params": params}, x, memory, VALID, SEEN)
        for m in (replace(decoder, unroll=1), replace(decoder, unroll=2))
    )
    assert np.isfinite(scanned).all()
    assert worst(np.asarray(scanned)[VALID], np.asarray(unrolled)[VALID]) <= 1e-5


def test_without_cross_attention_it_is_a_causal_encoder():
    decoder = model(cross=False)
    x = inputs(0, T)
    params = parameters(decoder, x)
    encoder = TransformerEncoder(depth=2, heads=H, mlp_width=F)
    causal = np.tril(np.ones((T, T), bool))
    found, expected = quick_jit(
        lambda p: (decoder.apply(p, x), encoder.apply(p, x, attention_mask=causal))
    )({"params": params})
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="cross=False, but memory is given"):
        decoder.apply({"params": params}, x, x)
    with pytest.raises(ValueError, match="cross=True, but memory is missing"):
        jax.eval_shape(model().init, jax.random.key(0), x)


@pytest.mark.table
def test_deepnorms_constants_are_those_of_an_encoder_decoder():
    """Wang et al. 2022, figure 2: alpha is seen through kernels of 0, beta in the first kernels."""
    depth, other = 3, 5
    x, memory = inputs(0, T), inputs(1, S)
    decoder = model("deepnorm", depth=depth, encoder_depth=other)
    encoder = TransformerEncoder(
        depth=other, heads=H, mlp_width=F, arrangement="deepnorm", decoder_depth=depth
    )
    betas = ((12 * depth) ** -0.25, 0.87 * (other**4 * depth) ** (-1 / 16))
    for stack, args, beta in ((decoder, (x, memory), betas[0]), (encoder, (x,), betas[1])):
        wide = replace(stack, mlp_width=4096)
        params = quick_jit(wide.init)(jax.random.key(0), *args)["params"]["layers"]
        deviation = np.asarray(params["feed_forward"]["branch"]["fc1"]["kernel"]).std()
        assert deviation == pytest.approx(beta * np.sqrt(2 / (D + 4096)), rel=0.02)
    alphas = ((3 * depth) ** 0.25, 0.81 * (other**4 * depth) ** (1 / 16))
    for stack, args, alpha in ((decoder, (x, memory), alphas[0]), (encoder, (x,), alphas[1])):
        shapes = jax.eval_shape(stack.init, jax.random.key(0), *args)["params"]
        params = jax.tree_util.tree_map_with_path(
            # Branches that write 1 / 2 in one feature, norms that shift by nothing.
            lambda path, p: half(path, p.shape), shapes
        )  # fmt: skip
        _, named = stack.apply({"params": params}, *args, return_intermediates=True)
        total = alpha * named["stream_in"][0] + 0.5 * np.eye(D)[0]
        centred = total - total.mean(-1, keepdims=True)
        want = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        assert worst(named["attention/stream"][0], want) <= 1e-5


def half(path, shape):
    """0 everywhere but for norms' scales and the output projection's first bias."""
    names = [key.key for key in path]
    if names[-1] == "scale":
        return np.ones(shape, np.float32)
    out = np.zeros(shape, np.float32)
    if names[-2:] == ["out", "bias"] and "attention" in names:
        out[..., 0] = 0.5
    return out


def test_a_layer_of_two_attentions_has_two_cross_attentions():
    """The first layer of five in sandwich order is two attentions, the last two feed-forwards."""
    decoder = TransformerDecoder(depth=5, heads=2, arrangement="sandwich_order")
    x, memory = jnp.ones((1, 3, 8)), jnp.ones((1, 4, 8))
    params = jax.eval_shape(decoder.init, jax.random.key(0), x, memory)["params"]
    first, *_, last = (params[name] for name in sorted(params) if name.startswith("layers"))
    names = {"attention", "cross_attention", "attention_1", "cross_attention_1"}
    assert set(first) == names
    assert set(last) == {"feed_forward", "feed_forward_1"}
    with pytest.raises(ValueError, match="memory is missing"):
        decoder.init(jax.random.key(0), x)
