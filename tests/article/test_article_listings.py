"""The article's listings against the PyTorch modules that they describe: outputs and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import assert_trees_close, quick_jit, worst
from tiers import every

from resnorm_jax import article

torch = pytest.importorskip("torch")
import torch_article as theirs  # noqa: E402

B, L, D, H = 3, 5, 8, 2


def compare(ours, module, x, valid=None, heads=H, **masks):
    """Outputs, and gradients of input and weights, under a random cotangent."""
    theirs.randomized(module)
    tensor = torch.tensor(x, requires_grad=True)
    expected = module(tensor, **{k: torch.tensor(v) for k, v in masks.items()})
    valid = np.ones(expected.shape[:-1], bool) if valid is None else valid
    cotangent = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    cotangent = np.where(valid[..., None], cotangent, 0)
    expected.backward(torch.tensor(cotangent))
    params = theirs.to_flax({n: p.detach() for n, p in module.named_parameters()}, heads)
    like = jax.eval_shape(ours.init, jax.random.key(0), x)["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda a: a.shape, like)

    @quick_jit
    def run(params, x):
        function = lambda p, x: ours.apply({"params": p}, x, **masks)  # noqa: E731
        out, pullback = jax.vjp(function, params, x)
        return out, pullback(jnp.asarray(cotangent))

    out, (gradients, x_gradient) = run(params, x)
    assert worst(np.asarray(out)[valid], expected.detach().numpy()[valid]) <= 1e-5
    assert worst(x_gradient, tensor.grad) <= 1e-5
    wanted = theirs.to_flax({n: p.grad for n, p in module.named_parameters()}, heads)
    assert_trees_close(gradients, wanted, 1e-5)
    return params


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def masks():
    valid = np.arange(L) < np.array([[5], [3], [4]])
    look = np.tril(np.ones((L, L), bool)) | (np.random.default_rng(2).random((L, L)) < 0.3)
    assert not look.all()
    return valid, {"src_mask": ~look, "src_key_padding_mask": ~valid}


def test_l1_residual_block():
    compare(article.ResidualBlock(D, dropout=0.0), theirs.ResidualBlock(D, 0.0), normal(B, L, D))


@pytest.mark.parametrize("epsilon", every([1e-6, 0.3], [0.3]))
def test_l2_layer_normalization(epsilon):
    ours = article.LayerNormalization(D, epsilon=epsilon)
    compare(ours, theirs.LayerNormalization(D, epsilon), 1 + 2 * normal(B, L, D))


@pytest.mark.parametrize("activation", every([None, "relu"], ["relu"]))
@pytest.mark.parametrize("masked", every([False, True], [True]))
def test_l3_transformer_layer(activation, masked):
    ours = article.TransformerLayer(D, H, dropout=0.0, activation=activation)
    module = theirs.TransformerLayer(D, H, 0.0, relu=activation == "relu")
    valid, given = masks() if masked else (None, {})
    compare(ours, module, normal(B, L, D), valid, **given)


@pytest.mark.table
def test_l4_transformer_with_both_masks():
    ours = article.Transformer(D, H, num_layers=3, dropout=0.0)
    valid, given = masks()
    compare(ours, theirs.Transformer(D, H, 3, 0.0), normal(B, L, D), valid, **given)


# 16: as wide as inside, so no projection
@pytest.mark.parametrize("input_dim", every([5, 16], [5]))
def test_l5_transformer_model_corrected(input_dim):
    ours = article.TransformerModel(input_dim, hidden_dim=16, output_dim=3)
    module = theirs.TransformerModel(input_dim, 16, 3)
    params = compare(ours, module, normal(7, input_dim), heads=4)
    assert ("shortcut" in params) == (input_dim != 16)


def test_l5_as_printed_cannot_run():
    x = torch.zeros(32, 100)
    with pytest.raises(RuntimeError, match=r"size of tensor a \(100\).*tensor b \(512\)"):
        theirs.PrintedModel()(x)
    model = article.TransformerModel()
    shape = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), jnp.ones((32, 100))))
    assert shape[0].shape == (32, 10)


@pytest.mark.table
def test_l5_as_printed_mixes_the_rows_of_a_batch_where_ours_does_not():
    """With equal widths it runs, and reads 32 rows as one sequence of 32 positions."""
    module = theirs.randomized(theirs.PrintedModel(16, 16, 3))
    x = torch.tensor(normal(4, 16))
    assert (module(x)[:1] - module(x[:1])).abs().max() > 1e-2
    ours = article.TransformerModel(16, 16, 3)
    out, variables = quick_jit(ours.init_with_output)(jax.random.key(0), normal(4, 16))
    apply = quick_jit(ours.apply)
    one = apply(variables, normal(4, 16)[:1])
    np.testing.assert_allclose(out[:1], one, rtol=1e-5, atol=1e-6)
    # Three dimensions are a batch of sequences, whose positions see each other.
    together = apply(variables, normal(1, 4, 16))
    assert together.shape == (1, 4, 3)
    assert worst(together[0], apply(variables, normal(1, 4, 16)[0])) > 1e-2


@pytest.mark.table
def test_what_stands_at_padding_does_not_leak():
    model = article.Transformer(D, H, num_layers=2)
    valid, given = masks()
    x = normal(B, L, D)
    variables = quick_jit(model.init)(jax.random.key(0), x)
    junk = np.where(valid[..., None], x, np.nan)

    def loss(x):
        out = model.apply(variables, x, **given)
        return jnp.sum(jnp.where(valid[..., None], out, 0) ** 2)

    both = quick_jit(jax.value_and_grad(loss))
    (clean, gradient), (found, own) = (both(z) for z in (x, junk))
    assert clean == found
    np.testing.assert_array_equal(gradient, own)
    assert not np.asarray(own)[~valid].any()


@pytest.mark.parametrize("name", ["src_mask", "src_key_padding_mask"])
def test_masks_of_numbers_are_refused(name):
    layer, x = article.TransformerLayer(D, H), normal(B, L, D)
    shape = (L, L) if name == "src_mask" else (B, L)
    with pytest.raises(TypeError, match=f"{name} is float32"):
        layer.init(jax.random.key(0), x, **{name: np.zeros(shape, np.float32)})


def test_a_gated_activation_is_refused():
    layer = article.TransformerLayer(D, H, activation="swiglu")
    with pytest.raises(ValueError, match="has a gate"):
        jax.eval_shape(layer.init, jax.random.key(0), normal(B, L, D))


@pytest.mark.table
@pytest.mark.parametrize("rate", every([0.1, 0.5], [0.1]))
def test_dropout_has_its_rate_and_keeps_the_mean(rate):
    block, x = article.ResidualBlock(64, dropout=rate), normal(500, 64)
    variables = block.init(jax.random.key(0), x)
    plain = np.asarray(block.apply(variables, x)) - x
    dropped = block.apply(variables, x, deterministic=False, rngs={"dropout": jax.random.key(1)})
    wrote = np.asarray(dropped) - x
    gone = np.abs(wrote) < 1e-6
    assert abs(gone.mean() - rate) < 4 * (rate * (1 - rate) / gone.size) ** 0.5
    np.testing.assert_allclose(wrote[~gone], plain[~gone] / (1 - rate), rtol=1e-4, atol=1e-4)


def test_dropout_of_a_layer_is_used_in_three_places(monkeypatch):
    """Attention's output, between the linear layers, after them."""
    layer, x = article.TransformerLayer(D, H, dropout=0.25), normal(B, L, D)
    variables = quick_jit(layer.init)(jax.random.key(0), x)
    drawn, bernoulli = [], jax.random.bernoulli

    def counted(key, p, shape, **options):
        drawn.append((round(float(p), 6), tuple(shape)))
        return bernoulli(key, p, shape, **options)

    monkeypatch.setattr(jax.random, "bernoulli", counted)
    drop = partial(layer.apply, deterministic=False)
    jax.eval_shape(drop, variables, x, rngs={"dropout": jax.random.key(1)})
    assert drawn == [(0.75, (B, L, D))] * 3
    assert np.isfinite(quick_jit(layer.apply)(variables, x)).all()
    assert len(drawn) == 3


@pytest.mark.table
def test_models_start_as_in_torch():
    """Deviation of every weight, which the losses of L6 depend on."""
    torch.manual_seed(0)
    module = theirs.TransformerModel(64, 256, 10)
    start = theirs.to_flax({n: p.detach() for n, p in module.named_parameters()}, 4)
    init = quick_jit(article.TransformerModel(64, 256, 10).init)
    ours = init(jax.random.key(0), normal(2, 64))["params"]
    for (path, expected), found in zip(
        jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(ours), strict=True
    ):
        largest = float(np.abs(expected).max())
        found = np.asarray(found)
        assert abs(np.std(found) - np.std(expected)) <= 0.15 * largest + 1e-7, path
        if expected.ndim > 1:
            assert np.std(found) == pytest.approx(np.std(expected), rel=0.05), path
            assert np.abs(found).max() == pytest.approx(largest, rel=0.05), path
