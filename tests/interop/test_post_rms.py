"""Post-LN encoders turned into RMS norms: exact for constant scales, and always in wider layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import resnorm_jax as rn
from resnorm_jax.interop.post_rms import post_rms_params, scale_spread
from resnorm_jax.interop.post_rms_exact import wide_post_rms_params

X = np.random.default_rng(1).normal(2, 3, (2, 7, 8)).astype(np.float32)
MASK = np.arange(7) < np.array([7, 3])[:, None]


def encoder(norm, mlp_width=10, embedding=True, activation="gelu"):
    norms = {"embedding_norm": norm} if embedding else {}
    return rn.TransformerEncoder(
        depth=3, heads=2, mlp_width=mlp_width, arrangement="post_ln", norm=norm, norms=norms,
        activation=activation,
    )  # fmt: skip


def random_params(module):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), X)["params"]
    return jax.tree_util.tree_map_with_path(
        lambda path, p: (
            rng.uniform(0.4, 1.6, p.shape) if path[-1].key == "scale" else rng.normal(0.2, 0.5, p.shape)
        ).astype(p.dtype),
        shapes,
    )  # fmt: skip


def test_constant_scales_are_exact_and_others_are_not():
    layer, rms = encoder("layer"), encoder("rms")
    params = random_params(layer)
    centred = X - X.mean(-1, keepdims=True)

    @jax.jit
    def error(params):
        new, bias = post_rms_params(params)
        found = rms.apply({"params": new}, centred, MASK) + bias
        return jnp.abs(found - layer.apply({"params": params}, X, MASK))[MASK].max()

    constant = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full_like(leaf, 1.3) if path[-1].key == "scale" else leaf, params
    )
    assert scale_spread(constant) < 1e-6
    assert error(constant) < 1e-5
    assert scale_spread(params) > 0.1
    assert error(params) > 1e-2


@pytest.mark.parametrize("activation", ["gelu", pytest.param("relu", marks=pytest.mark.table)])
def test_wider_layers_are_exact_whatever_the_scales(activation):
    layer, rms = encoder("layer", activation=activation), encoder("rms", 10 + 14, True, activation)
    params = random_params(layer)
    params["layers"]["feed_forward"]["norm_on_stream"]["scale"][1, 2:4] = 0, 1e-7  # as trained ones
    function = {"gelu": lambda a: jax.nn.gelu(a, approximate=False), "relu": jax.nn.relu}[
        activation
    ]
    new, into, last = wide_post_rms_params(params, function)
    shapes = jax.eval_shape(rms.init, jax.random.key(0), X)["params"]
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, shapes)

    @jax.jit
    def both(params, new):
        with jax.default_matmul_precision("highest"):
            found = rms.apply({"params": new}, X @ into.astype(np.float32), MASK)
            return found, layer.apply({"params": params}, X, MASK)

    found, wanted = both(params, new)
    found = np.asarray(found) @ last.read + last.bias
    assert np.abs(wanted[MASK]).max() > 1
    np.testing.assert_allclose(found[MASK], np.asarray(wanted)[MASK], atol=2e-5)


def test_others_are_refused():
    shapes = jax.eval_shape(rn.TransformerEncoder(depth=2, heads=2).init, jax.random.key(0), X)
    with pytest.raises(ValueError, match="Post-LN"):
        post_rms_params(shapes["params"])
    params = random_params(encoder("layer", embedding=False))
    with pytest.raises(ValueError, match="begins without a norm"):
        wide_post_rms_params(params, jax.nn.relu)
    params = random_params(encoder("layer"))
    with pytest.raises(ValueError, match="act"):
        wide_post_rms_params(params, jnp.tanh)
    params["layers"]["feed_forward"]["norm_on_stream"]["scale"][1] = [1, 1, 1, 1, -1, -1, -1, -1]
    with pytest.raises(ValueError, match="nothing but a mean"):
        wide_post_rms_params(params, jax.nn.relu)
