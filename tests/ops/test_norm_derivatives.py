"""Derivatives and transformations of every kind, for XLA's code and for the kernels.

The oracle is the equation in float64, left to JAX: no rule of the package stands in it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from oracles import quick_jit, worst, x64
from tiers import every

from resnorm_jax import add_layer_norm, layer_norm, rms_norm

ROWS, WIDTH = 8, 6


def plain_layer_norm(x, scale, bias):
    centred = x - jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(centred * centred, -1, keepdims=True)
    return centred / jnp.sqrt(variance + 1e-6) * scale + bias


def plain_rms_norm(x, scale):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale


NORMS = {"layer_norm": (layer_norm, plain_layer_norm), "rms_norm": (rms_norm, plain_rms_norm)}


def arrays(name, seed=0):
    """x, scale and, but for RMS norm, bias; in float64."""
    rng = np.random.default_rng(seed)
    found = rng.normal(0.5, 1.5, (ROWS, WIDTH)), rng.normal(1, 1, WIDTH), rng.normal(size=WIDTH)
    return found[: 2 if name == "rms_norm" else 3]


def weights(like, seed=9):
    return jnp.asarray(np.random.default_rng(seed).normal(size=like.shape), like.dtype)


def tangents(args):
    return tuple(weights(a, 20 + i) for i, a in enumerate(args))


def loss(norm):
    """A scalar that is curved in the norm's result."""
    return lambda *args: jnp.sum(jnp.sin(norm(*args)) * weights(args[0]))


def all_of(args):
    return tuple(range(len(args)))


def vjp(norm, *args):
    out, pullback = jax.vjp(norm, *args)
    return out, pullback(weights(out))


def jvp(norm, *args):
    return jax.jvp(norm, args, tangents(args))


def x_alone(norm, *args):
    return jax.grad(loss(norm))(*args)


def parameters_alone(norm, *args):
    return jax.grad(loss(norm), all_of(args)[1:])(*args)


def jvp_of_parameters_alone(norm, *args):
    return jax.jvp(partial(norm, args[0]), args[1:], tangents(args[1:]))


def jacobian_forward(norm, *args):
    return jax.jacfwd(norm, all_of(args))(*args)


def jacobian_reverse(norm, *args):
    return jax.jacrev(norm, all_of(args))(*args)


def hessian_vector(norm, *args):
    return jax.jvp(jax.grad(loss(norm), all_of(args)), args, tangents(args))[1]


def reverse_over_reverse(norm, *args):
    def along(*args):
        gradients = jax.grad(loss(norm), all_of(args))(*args)
        return sum(jnp.vdot(g, t) for g, t in zip(gradients, tangents(args), strict=True))

    return jax.grad(along, all_of(args))(*args)


def reverse_over_forward(norm, *args):
    def along(*args):
        return jax.jvp(loss(norm), args, tangents(args))[1]

    return jax.grad(along, all_of(args))(*args)


def forward_over_forward(norm, *args):
    def first(*args):
        return jax.jvp(norm, args, tangents(args))[1]

    return jax.jvp(first, args, tangents(args))


def hessian(norm, *args):
    return jax.hessian(loss(norm), all_of(args))(*args)


def third(norm, *args):
    return jax.jvp(partial(hessian_vector, norm), args, tangents(args))[1]


def vmap_rows(norm, *args):
    return vjp(jax.vmap(norm, (0, *[None] * len(args[1:]))), *args)


def vmap_parameters(norm, *args):
    many = [jnp.stack([p, 2 * p, -p]) for p in args[1:]]
    return vjp(jax.vmap(norm, (None, *[0] * len(many))), args[0], *many)


def vmap_both(norm, *args):
    many = [jnp.stack([p, 2 * p]) for p in args[1:]]
    return hessian_vector(jax.vmap(norm), args[0].reshape(2, -1, WIDTH), *many)


def vmap_one_parameter(norm, *args):
    many = jnp.stack([args[1], 2 * args[1]])
    return vjp(jax.vmap(norm, (None, 0, *[None] * len(args[2:]))), args[0], many, *args[2:])


def gradients_by_example(norm, *args):
    def one(x, *parameters):
        return jax.grad(loss(norm), all_of(args))(x, *parameters)

    return jax.vmap(one, (0, *[None] * len(args[1:])))(*args)


def curvature_by_example(norm, *args):
    def one(x, *parameters):
        return hessian_vector(norm, x, *parameters)

    return jax.vmap(one, (0, *[None] * len(args[1:])))(*args)


def jvp_of_vmapped_jvp(norm, *args):
    def one(x, t):
        return jax.jvp(norm, (x, *args[1:]), (t, *tangents(args[1:])))[1]

    def many(x):
        return jax.vmap(one)(x, weights(x))

    return jax.jvp(many, args[:1], tangents(args[:1]))


def scan(norm, *args):
    def scanned(x, *parameters):
        return jax.lax.scan(lambda c, row: (c, norm(row, *parameters)), 0, x)[1]

    return hessian_vector(scanned, *args)


def remat(norm, *args):
    return vjp(jax.checkpoint(norm), *args)


def remat_with_a_policy(norm, *args):
    policy = jax.checkpoint_policies.everything_saveable
    return hessian_vector(jax.checkpoint(norm, policy=policy), *args)


def pmap(norm, *args):
    def one(x, w):
        grads = jax.grad(lambda *a: jnp.sum(norm(*a) * w), all_of(args))(x, *args[1:])
        return grads[0], jax.lax.psum(grads[1:], "d")

    dx, sums = jax.pmap(one, axis_name="d", out_axes=(0, None))(
        args[0].reshape(4, -1, WIDTH), weights(args[0]).reshape(4, -1, WIDTH)
    )
    return dx.reshape(args[0].shape), sums


def mesh(kind):
    kinds = (getattr(jax.sharding.AxisType, kind),)
    return jax.make_mesh((4,), ("d",), axis_types=kinds, devices=jax.devices()[:4])


def shard_map(norm, *args):
    """Gradients of parameters that are the same on all devices are summed over these."""
    rows, whole = PartitionSpec("d"), PartitionSpec()

    def one(x, w, *parameters):
        return jax.grad(lambda *a: jnp.sum(norm(*a) * w), all_of(args))(x, *parameters)

    specs = (rows, rows, *[whole] * len(args[1:]))
    outs = (rows, *[whole] * len(args[1:]))
    mapped = jax.shard_map(one, mesh=mesh("Auto"), in_specs=specs, out_specs=outs)
    return mapped(args[0], weights(args[0]), *args[1:])


def sharded(norm, *args, kind="Auto"):
    rows = NamedSharding(mesh(kind), PartitionSpec("d"))
    return jax.jit(partial(hessian_vector, norm))(jax.device_put(args[0], rows), *args[1:])


ALL = [
    vjp, jvp, x_alone, parameters_alone, jvp_of_parameters_alone, jacobian_forward, jacobian_reverse,
    hessian_vector, reverse_over_reverse, reverse_over_forward, forward_over_forward, hessian, third,
    vmap_rows, vmap_parameters, vmap_both, vmap_one_parameter, gradients_by_example,
    curvature_by_example, jvp_of_vmapped_jvp, scan, remat, remat_with_a_policy, pmap, shard_map,
    sharded,
]  # fmt: skip
QUICK = [hessian_vector, gradients_by_example, shard_map]
UNCOMPILED = (pmap, shard_map, sharded)


def run(way, norm, args):
    function = partial(way, norm)
    return jax.tree.leaves((function if way in UNCOMPILED else quick_jit(function))(*args))


def check(way, name, dtype, tolerance, **options):
    norm, plain = NORMS[name]
    with x64():
        given = [jnp.asarray(a, dtype) for a in arrays(name)]
        found = run(way, partial(norm, **options), given)
        as_oracle = vjp if way in (pmap, shard_map) else hessian_vector if way is sharded else way
        expected = run(as_oracle, plain, [jnp.asarray(a) for a in arrays(name)])
        if way in (pmap, shard_map):
            expected = expected[1:]
    assert len(found) == len(expected)
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == dtype
        assert worst(got, want) <= tolerance


@pytest.mark.parametrize("way", every(ALL, QUICK, lambda way: way.__name__))
@pytest.mark.parametrize("name", every(NORMS, ["layer_norm"]))
def test_every_kind_in_float64(way, name):
    check(way, name, jnp.float64, 1e-11)


@pytest.mark.table
@pytest.mark.parametrize("way", [way for way in ALL if way is not shard_map])  # JAX steps not there
@pytest.mark.parametrize("name", NORMS)
def test_every_kind_with_the_kernels(way, name):
    check(way, name, jnp.float32, 2e-5, implementation="interpret")


@pytest.mark.table
@pytest.mark.parametrize("name", NORMS)
def test_arrays_that_carry_their_sharding_in_their_type(name):
    norm, plain = NORMS[name]
    on = mesh("Explicit")
    args = [jnp.asarray(a, jnp.float32) for a in arrays(name)]
    with jax.set_mesh(on):
        rows = jax.device_put(args[0], NamedSharding(on, PartitionSpec("d")))
        out = jax.jit(norm)(rows, *args[1:])
        found = jax.jit(jax.grad(lambda *a: jnp.sum(norm(*a) ** 3), all_of(args)))(rows, *args[1:])
    assert out.sharding.spec == PartitionSpec("d", None)
    expected = jax.grad(lambda *a: jnp.sum(plain(*a) ** 3), all_of(args))(*args)
    for got, want in zip(found, expected, strict=True):
        assert worst(got, want) <= 2e-5


def test_a_tangent_that_is_zero_costs_nothing():
    args = [jnp.asarray(a, jnp.float32) for a in arrays("layer_norm")]
    jaxpr = jax.make_jaxpr(jax.grad(loss(layer_norm), 0))(*args)
    (backward,) = [e for e in jaxpr.eqns if e.primitive.name == "norm_backward"]
    assert backward.params["outs"] == ("dx",)
    forwards = [e for e in jaxpr.eqns if e.primitive.name == "norm_forward"]
    assert len(forwards) == 1
    jaxpr = jax.make_jaxpr(jax.grad(loss(layer_norm), 2))(*args)
    (backward,) = [e for e in jaxpr.eqns if e.primitive.name == "norm_backward"]
    assert backward.params["outs"] == ("dbias",)
    (undifferentiated,) = jax.make_jaxpr(layer_norm)(*args).eqns
    assert undifferentiated.params["outs"] == ("y",)  # no numbers of rows are kept


@pytest.mark.parametrize("added", [True, False])
def test_the_gradient_of_the_stream_is_added_in_the_backward_pass(added):
    x, scale, bias = (jnp.asarray(a, jnp.float32) for a in arrays("layer_norm"))

    def both(x, branch, scale, bias):
        normed, stream = add_layer_norm(x, branch if added else None, scale, bias)
        return jnp.sum(jnp.sin(normed) * weights(x)) + jnp.sum(jnp.cos(stream) * weights(x, 3))

    def plain(x, branch, scale, bias):
        stream = x + branch if added else x
        normed = plain_layer_norm(stream, scale, bias)
        return jnp.sum(jnp.sin(normed) * weights(x)) + jnp.sum(jnp.cos(stream) * weights(x, 3))

    args = (x, x[::-1] * 2, scale, bias)
    jaxpr = jax.make_jaxpr(jax.grad(both, (0, 1, 2, 3)))(*args)
    (backward,) = [e for e in jaxpr.eqns if e.primitive.name == "norm_backward"]
    assert "stream_g" in backward.params["names"]
    assert not any(e.primitive.name == "add_any" and e.outvars[0].aval.ndim for e in jaxpr.eqns)
    found = quick_jit(jax.grad(both, (0, 1, 2, 3)))(*args)
    expected = quick_jit(jax.grad(plain, (0, 1, 2, 3)))(*args)
    for got, want in zip(found, expected, strict=True):
        assert worst(got, want) <= 2e-6


@pytest.mark.table
@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("way", [jvp, hessian_vector, reverse_over_reverse, vmap_both])
def test_derivatives_of_the_sum_and_its_norm(way, added):
    def norm(x, scale, bias):
        return sum(add_layer_norm(x, x[..., ::-1] * 2 if added else None, scale, bias))

    def plain(x, scale, bias):
        stream = x + x[..., ::-1] * 2 if added else x
        return plain_layer_norm(stream, scale, bias) + stream

    with x64():
        args = [jnp.asarray(a) for a in arrays("layer_norm")]
        found, expected = run(way, norm, args), run(way, plain, args)
    for got, want in zip(found, expected, strict=True):
        assert worst(got, want) <= 1e-11


@pytest.mark.table
def test_values_under_disabled_compilation():
    args = [jnp.asarray(a, jnp.float32) for a in arrays("layer_norm")]
    with jax.disable_jit():
        assert worst(layer_norm(*args), plain_layer_norm(*args)) <= 1e-6
