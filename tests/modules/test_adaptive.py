"""Adaptive norms as modules: the condition, and a block that is the identity at first."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from norm_oracles import ada_layer, ada_rms, silu
from oracles import quick_jit, worst

from resnorm_jax import layer_norm, norms, rms_norm
from resnorm_jax.norms.adaptive import ZeroModulation
from resnorm_jax.ops.norms import adaptive_layer_norm
from resnorm_jax.ops.norms.adaptive import MODULATIONS

ROWS = {"ada_layer": (layer_norm, ada_layer, 2), "ada_rms": (rms_norm, ada_rms, 1)}
every_row = pytest.mark.parametrize("name", ROWS)


def random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(0.3, 1, shape).astype(np.float32)


@every_row
def test_at_first_the_condition_is_not_seen_but_learns(name):
    plain = ROWS[name][0]
    module = norms.get(name).build(name="n")
    x, condition = random(2, 5, 6), random(2, 3)
    variables = quick_jit(module.init)(jax.random.key(0), x, condition=condition)
    found = quick_jit(module.apply)(variables, x, condition=condition)
    np.testing.assert_array_equal(found, quick_jit(plain)(x))

    def loss(variables):
        return (module.apply(variables, x, condition=condition) * random(2, 5, 6, seed=1)).sum()

    gradient = quick_jit(jax.grad(loss))(variables)["params"]["modulation"]
    assert np.abs(gradient["kernel"]).min() > 1e-4
    assert np.abs(gradient["bias"]).min() > 1e-4


@every_row
def test_each_sample_has_its_own_condition_and_gradient(name):
    _, oracle, parts = ROWS[name]
    module = norms.get(name).build(name="n")
    x, condition = random(2, 5, 6), random(2, 3)
    kernel, bias = random(3, parts * 6, seed=1), random(parts * 6, seed=2)
    weights = random(2, 5, 6, seed=3)
    params = {"modulation": {"kernel": kernel, "bias": bias}}

    @quick_jit
    def run(x, condition, weights):
        out, pullback = jax.vjp(
            lambda x, c: module.apply({"params": params}, x, condition=c), x, condition
        )
        return out, pullback(weights)

    out, (dx, dc) = run(x, condition, weights)
    tree = {"x": x.astype(float), "c": condition.astype(float)}

    def expected(tree):
        rows = [
            oracle(x, kernel.astype(float), bias.astype(float), condition=c[None], epsilon=1e-6)
            for x, c in zip(tree["x"], tree["c"], strict=True)
        ]
        return np.stack(rows)

    assert worst(out, expected(tree)) <= 5e-7
    gradients = oracles.gradients(lambda tree: (expected(tree) * weights).sum(), tree)
    assert worst(dx, gradients["x"]) <= 1e-6
    assert worst(dc, gradients["c"]) <= 1e-6


@every_row
def test_a_first_factor_of_0_and_no_condition(name):
    x, condition = random(2, 5, 6), random(2, 3)
    module = norms.get(name).build(name="n", scale_init=0.25)
    out, _ = module.init_with_output(jax.random.key(0), x, condition=condition)
    np.testing.assert_allclose(out, 0.25 * ROWS[name][0](x), rtol=1e-6)
    with pytest.raises(ValueError, match=r"needs a condition \[B, C\]"):
        module.init(jax.random.key(0), x)


def test_zero_modulation_is_a_dense_of_silu_in_dits_order():
    condition, kernel, bias = random(2, 3), random(3, 24, seed=1), random(24, seed=2)
    params = {"modulation": {"kernel": kernel, "bias": bias}}
    parts = ZeroModulation(width=4).apply({"params": params}, condition)
    assert tuple(parts) == MODULATIONS
    expected = silu(condition.astype(float)) @ kernel + bias
    for number, part in enumerate(parts.values()):
        assert worst(part, expected[:, 4 * number : 4 * number + 4]) <= 1e-6
    half = ZeroModulation(width=4, dtype=jnp.bfloat16).apply({"params": params}, condition)
    assert half["gate_mlp"].dtype == jnp.bfloat16


class Block(nn.Module):
    """A DiT block with Dense layers for branches."""

    @nn.compact
    def __call__(self, x, condition):
        parts = ZeroModulation(width=x.shape[-1], name="zero")(condition)
        for kind in ("msa", "mlp"):
            shift, scale, gate = (parts[f"{part}_{kind}"] for part in ("shift", "scale", "gate"))
            h = adaptive_layer_norm(x, shift, scale)
            x = x + gate[:, None] * nn.Dense(x.shape[-1], name=kind)(h)
        return x


def test_an_ada_ln_zero_block_is_the_identity_at_first_and_learns():
    x, condition, weights = random(2, 5, 6), random(2, 3), random(2, 5, 6, seed=1)
    block = Block()
    variables = quick_jit(block.init)(jax.random.key(0), x, condition)
    apply = quick_jit(block.apply)
    np.testing.assert_array_equal(apply(variables, x, condition), x)

    @quick_jit
    def gradient(variables):
        return jax.grad(lambda v: (block.apply(v, x, condition) * weights).sum())(variables)

    found = gradient(variables)["params"]
    by_part = np.split(np.asarray(found["zero"]["modulation"]["kernel"]), 6, axis=-1)
    for name, part in zip(MODULATIONS, by_part, strict=True):
        # The gates learn at once; behind a gate of 0 nothing else does.
        assert np.abs(part).max() > 1e-3 if name.startswith("gate") else not part.any()
    assert not np.asarray(found["msa"]["kernel"]).any()
    moved = jax.tree.map(lambda p, g: p - 0.1 * g, variables, {"params": found})
    second = gradient(moved)["params"]
    assert all(np.abs(leaf).max() > 1e-4 for leaf in jax.tree.leaves(second))
    assert worst(apply(moved, x, condition), x) > 1e-3
