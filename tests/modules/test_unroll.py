"""The loop over layers: what "auto" stands for, and that nothing but speed depends on it."""

import re
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from oracles import quick_jit, worst
from tiers import every

from resnorm_jax import TransformerDecoder, TransformerEncoder
from resnorm_jax.errors import ChoiceError
from resnorm_jax.planning.unroll import auto_text, choose_unroll, loop_text

B, L, D, N = 2, 5, 8, 4
DROPS = {"dropout": 0.3, "attention_dropout": 0.2, "drop_path": 0.3}


def encoder(depth=N, **options):
    return TransformerEncoder(**{"depth": depth, "heads": 2, "mlp_width": 16} | options)


def inputs(shape=(B, L, D)):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def gradient(model, train=False):
    """The gradient of a sum of squares, as a function of parameters, input and key."""

    def loss(params, x, key):
        out = model.apply({"params": params}, x, deterministic=not train, rngs={"dropout": key})
        return (out**2).sum(), out

    return jax.value_and_grad(loss, has_aux=True)


def abstract(model, shape=(B, L, D)):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    return params, x, jax.random.key(0)


def equations(jaxpr):
    """Every equation, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


@pytest.mark.parametrize(
    ("given", "depth", "remat", "backend", "found"),
    [
        ("auto", 12, "none", "gpu", 12),
        ("auto", 24, "none", "tpu", 24),
        ("auto", 25, "none", "gpu", 1),
        ("auto", 1000, "none", "gpu", 1),
        ("auto", 12, "full", "gpu", 1),
        ("auto", 1, "none", "cpu", 1),
        ("auto", 4, "none", "cpu", 1),
        ("auto", 3, "dots", "cpu", 1),
        (4, 12, "none", "cpu", 4),
        (4, 12, "full", "gpu", 4),
        (40, 12, "none", "gpu", 12),
    ],
)
def test_what_auto_stands_for(given, depth, remat, backend, found):
    assert choose_unroll(given, depth, remat, backend) == found


@pytest.mark.parametrize("wrong", [0, -1, True, 1.0, None, "all", 10**9])
def test_what_is_no_number_of_layers_is_refused(wrong):
    with pytest.raises(ChoiceError, match=r"^unroll: .* is no number of layers; give one from 1"):
        jax.eval_shape(encoder(unroll=wrong).init, jax.random.key(0), inputs())


def test_what_is_said_of_it():
    said = [loop_text(*case) for case in ((12, 12), (1, 12), (4, 12))]
    assert said == ["unrolled", "in a loop", "in a loop, 4 in each step"]
    assert auto_text(12) == "in a loop on a CPU, unrolled on a GPU, unrolled on a TPU"


KINDS = {
    "encoder": encoder(5),
    "decoder": TransformerDecoder(depth=5, heads=2, mlp_width=16, cross=False),
}


@pytest.mark.parametrize("kind", every(KINDS, ["encoder"]))
def test_auto_unrolls_where_there_is_an_accelerator(kind, monkeypatch):
    """Forward and backward: no loop, and no array that is written or read at a running index."""
    model = KINDS[kind]
    assert model.layers_a_step == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert model.layers_a_step == 5
    text = jax.jit(gradient(model)).lower(*abstract(model)).as_text()
    assert not any(f"stablehlo.{name}" in text for name in ("while", "dynamic_"))


@pytest.mark.table
def test_a_thousand_layers_are_a_program_of_the_size_of_ten():
    def size(depth):
        model = encoder(depth)
        return sum(1 for _ in equations(jax.make_jaxpr(gradient(model))(*abstract(model)).jaxpr))

    assert size(1000) <= 1.2 * size(10)


@pytest.mark.table
@pytest.mark.parametrize("unroll", [2, 3, N])
def test_dropout_values_and_gradients_are_the_same(unroll):
    """To rounding: which sums XLA fuses differs. Which elements are dropped does not."""
    model = encoder(unroll=1, **DROPS)
    changed, key = replace(model, unroll=unroll), jax.random.key(3)
    variables = model.init(jax.random.key(1), inputs())
    other = changed.init(jax.random.key(1), inputs())
    jax.tree.map(np.testing.assert_array_equal, variables, other)
    (_, want), grads = quick_jit(gradient(model, True))(variables["params"], inputs(), key)
    (_, out), found = quick_jit(gradient(changed, True))(variables["params"], inputs(), key)
    assert worst(out, want) < 1e-6
    largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(grads))
    chex.assert_trees_all_close(found, grads, rtol=1e-4, atol=1e-6 * largest)


@pytest.mark.parametrize(("unroll", "kept_apart"), [(1, False), (2, True), (N, True)])
def test_what_is_computed_again_is_kept_apart_where_no_loop_does(unroll, kept_apart):
    """Unrolled, XLA could take what it had computed before, and save no memory."""
    model = encoder(unroll=unroll, remat="full")
    jaxpr = jax.make_jaxpr(model.apply)({"params": abstract(model)[0]}, inputs()).jaxpr
    found = [e.params["prevent_cse"] for e in equations(jaxpr) if e.params.get("policy")]
    assert found
    assert set(found) == {kept_apart}


@pytest.mark.table
def test_unrolled_nothing_is_stacked_but_gradients():
    """What the backward pass needs lies in arrays of its own: XLA folds the slices of stacks."""
    model = encoder(3, unroll=3)
    params, *rest = abstract(model)
    text = jax.jit(gradient(model)).lower(params, *rest).compile().as_text()
    stacked = {tuple(p.shape) for p in jax.tree.leaves(params)}
    found = re.findall(r"= f32\[([\d,]*)\]\S* concatenate\(", text)
    assert found
    assert {tuple(map(int, shape.split(","))) for shape in found} <= stacked
    assert not re.search(r" (while|dynamic-slice|dynamic-update-slice)\(", text)
