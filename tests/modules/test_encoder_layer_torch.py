"""The encoder layer against torch.nn.TransformerEncoderLayer, outputs and every gradient."""

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import quick_jit, worst
from tiers import every

from resnorm_jax import TransformerEncoderLayer

torch = pytest.importorskip("torch")
B, L, D, H, F = 3, 5, 8, 2, 12
NORMS = {  # arrangement: its norms' places, in torch's order norm1, norm2
    "post_ln": ("attention/norm_on_stream", "feed_forward/norm_on_stream"),
    "pre_ln": ("attention/norm_before", "feed_forward/norm_before"),
}


def torch_layer(norm_first, activation):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        D, H, F, dropout=0.0, activation=activation, batch_first=True, norm_first=norm_first
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # no norm at 1 and no bias at 0, or a wrong one would pass
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return layer.train()  # the fast path of eval mode is another implementation


def to_flax(values, norms):
    """Lay out torch's parameters, or their gradients, as ours, under slash-joined paths."""
    v = {name: np.asarray(value) for name, value in values.items()}
    tree = {}
    for i, role in enumerate(("query", "key", "value")):
        rows = slice(i * D, (i + 1) * D)
        kernel = v["self_attn.in_proj_weight"][rows].T.reshape(D, H, D // H)
        tree[f"attention/branch/{role}/kernel"] = kernel
        tree[f"attention/branch/{role}/bias"] = v["self_attn.in_proj_bias"][rows].reshape(H, -1)
    tree["attention/branch/out/kernel"] = v["self_attn.out_proj.weight"].T.reshape(H, D // H, D)
    tree["attention/branch/out/bias"] = v["self_attn.out_proj.bias"]
    for ours, theirs in (("fc1", "linear1"), ("fc2", "linear2")):
        tree[f"feed_forward/branch/{ours}/kernel"] = v[f"{theirs}.weight"].T
        tree[f"feed_forward/branch/{ours}/bias"] = v[f"{theirs}.bias"]
    for place, theirs in zip(norms, ("norm1", "norm2"), strict=True):
        tree[f"{place}/scale"] = v[f"{theirs}.weight"]
        tree[f"{place}/bias"] = v[f"{theirs}.bias"]
    return tree


@pytest.mark.parametrize("activation", every(["relu", "gelu"], ["gelu"]))
@pytest.mark.parametrize("arrangement", NORMS)
def test_equal_to_torch_with_both_masks(arrangement, activation):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(B, L, D)).astype(np.float32)
    valid = np.arange(L) < np.array([[5], [3], [4]])
    weights = np.where(valid[..., None], rng.normal(size=x.shape), 0).astype(np.float32)
    may_look = np.tril(np.ones((L, L), bool)) | (rng.random((L, L)) < 0.3)
    assert not may_look.all()

    layer = torch_layer(arrangement == "pre_ln", activation)
    tensor = torch.tensor(x, requires_grad=True)
    # torch's masks say where *not* to look.
    expected = layer(
        tensor,
        src_mask=torch.tensor(~may_look),
        src_key_padding_mask=torch.tensor(~valid),
    )
    expected.backward(torch.tensor(weights))

    ours = TransformerEncoderLayer(
        heads=H, mlp_width=F, arrangement=arrangement, activation=activation, norm_epsilon=1e-5
    )
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    flat = to_flax(parameters, NORMS[arrangement])
    params = flax.traverse_util.unflatten_dict(flat, sep="/")
    like = jax.eval_shape(ours.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda a: a.shape, like)

    @quick_jit
    def run(params, x):
        out, pullback = jax.vjp(
            lambda p, x: ours.apply({"params": p}, x, valid, attention_mask=may_look), params, x
        )
        return out, pullback(jnp.asarray(weights))

    out, (grads, x_grad) = run(params, x)
    want = expected.detach().numpy()
    np.testing.assert_allclose(np.asarray(out)[valid], want[valid], rtol=1e-5, atol=1e-5)
    assert worst(x_grad, tensor.grad) <= 1e-5
    found = flax.traverse_util.flatten_dict(grads, sep="/")
    wanted = to_flax({n: p.grad for n, p in layer.named_parameters()}, NORMS[arrangement])
    assert set(found) == set(wanted)
    largest = max(np.abs(g).max() for g in wanted.values())
    for path, gradient in wanted.items():
        if path.endswith("key/bias"):  # zero but for rounding: softmax does not see it
            assert np.abs(found[path]).max() <= 1e-5 * largest
        else:
            assert worst(found[path], gradient) <= 1e-5, path


@pytest.mark.table
def test_the_default_epsilon_is_not_torchs():
    """The comparison above can tell one epsilon from the other."""
    x = 1e-2 * np.random.default_rng(0).normal(size=(B, L, D)).astype(np.float32)
    outputs = []
    for epsilon in (None, 1e-5):
        layer = TransformerEncoderLayer(heads=H, mlp_width=F, norm_epsilon=epsilon)
        outputs.append(quick_jit(layer.init_with_output)(jax.random.key(0), x)[0])
    assert worst(*outputs) > 1e-3
