"""What a plan says is kept is what modules make: paths, shapes, roles."""

import jax
import jax.numpy as jnp
import pytest
from tiers import every, schemes, stream_traits

import resnorm_jax as rn
from resnorm_jax import arrangements, norms, streams
from resnorm_jax.planning.parameters import of_layer, parameters
from resnorm_jax.planning.roles import parameter_roles
from resnorm_jax.schemes.query_key import QUERY_KEY

WIDTH, HEADS, DEPTH = 8, 2, 5


def check(model, memory=None):
    """Compare a plan with the variables that Flax would make."""
    x = jnp.ones((1, 3, WIDTH))
    args = (x,) if memory is None else (x, memory)
    made = jax.eval_shape(model.init, jax.random.key(0), *args)
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(made)
    }
    planned = parameters(model.plan(WIDTH))
    assert {f"{p.collection}/{p.path}": p.shape for p in planned} == leaves
    assert len(planned) == len(leaves)
    roles = jax.tree_util.tree_leaves_with_path(parameter_roles(made["params"]))
    named = {jax.tree_util.keystr(p, simple=True, separator="/"): role for p, role in roles}
    assert {p.path: p.role for p in planned if p.collection == "params"} == named
    return planned


def encoder(arrangement="pre_ln", **fields):
    return rn.TransformerEncoder(depth=DEPTH, heads=HEADS, arrangement=arrangement, **fields)


@pytest.mark.parametrize("name", every(arrangements.names(), schemes(stream_traits)))
def test_parameters_of_every_arrangement(name):
    planned = check(encoder(name, mlp_width=12))
    assert all(p.first for p in planned if p.collection == "params"), planned


@pytest.mark.table
def test_parameters_of_every_norm_stream_and_row_of_query_key():
    for name in norms.names():
        check(encoder(norm=name))
    for name in streams.names():
        check(encoder(stream=name))
    for name in QUERY_KEY.names():
        check(encoder(query_key=name))


def test_parameters_of_options():
    check(encoder(activation="swiglu", use_bias=False))
    check(encoder("ngpt", activation="swiglu"))
    check(encoder(norm="rms*2+layer"))
    inside = ("embedding_norm", "value_norm", "heads_norm", "mlp_norm")
    check(encoder(norms=dict.fromkeys(inside, "rms")))
    check(encoder("parallel_two_norms", norm="rms_gated"))
    grouped = {"kv_heads": 1, "head_width": 6, "use_bias": "query+fc1", "activation": "geglu"}
    check(encoder("reordered_ln", norm="rms", norms={"heads_norm": "rms"}, **grouped))
    check(encoder("value_residual", query_key="head", norms={"value_norm": "rms"}, **grouped))
    check(encoder("parallel_one_norm", relative="bias", relative_buckets=8, **grouped))
    check(encoder(relative="bias", relative_by_layer=True, layer_groups=1))
    check(encoder(relative="disentangled", norms={"attention/norm_before": "none*1+layer"}))
    decoder = rn.TransformerDecoder(depth=2, heads=HEADS, arrangement="sub_ln", encoder_depth=3)
    check(decoder, jnp.ones((1, 4, WIDTH)))


def test_one_layer_has_its_own_shapes():
    plan = encoder("mix_ln", mlp_width=12).plan(WIDTH)
    shapes = {p.path: p.shape for p in of_layer(plan, plan.layer(1))}
    assert shapes["feed_forward/branch/fc1/kernel"] == (WIDTH, 12)
    assert "attention/norm_on_stream/scale" in shapes
    assert "attention/norm_before/scale" in {p.path for p in of_layer(plan, plan.layer(5))}
