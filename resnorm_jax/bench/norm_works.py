"""The programs that are timed for a norm written in JAX: forward, backward and both."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.bench.cases import NormCase
from resnorm_jax.bench.norm_speed import with_gradients

Works = dict[str, list[Callable[[], Any]]]
"""For each direction the programs that do it; the fastest counts."""
Function = Callable[..., Any]


def random_arrays(case: NormCase) -> tuple[list[jax.Array], Any]:
    """Return a case's inputs, made on the device, and the gradients of its outputs.

    The inputs are ``x``, the branch if it is added, the scale and, but for RMS, the bias.
    """
    keys = iter(jax.random.split(jax.random.key(0), 6))
    wide = [_normal(next(keys), case.shape, case.dtype) for _ in range(2 * (1 + case.added))]
    count = 2 if case.kind == "layer" else 1
    weights = [_normal(next(keys), case.shape[-1:], "float32") for _ in range(count)]
    inputs, cotangents = wide[: 1 + case.added], wide[1 + case.added :]
    return [*inputs, *weights], tuple(cotangents) if case.added else cotangents[0]


def _normal(key: jax.Array, shape: Sequence[int], dtype: str) -> jax.Array:
    return jax.block_until_ready(jax.random.normal(key, shape, jnp.dtype(dtype)))


def jax_works(function: Function, inputs: Sequence[jax.Array], cotangent: Any) -> Works:
    """Return the programs of a function.

    The backward pass is the faster of two: on what the forward pass saved, in a program of its own;
    and in one program with a forward pass whose result nobody reads, so that XLA may leave out what
    only that needs. Kernels are at their best in the first, what XLA fuses in the second.
    """
    pair = _forward_and_pullback(function, added=isinstance(cotangent, tuple))

    def all_of_it(inputs: Any, given: Any) -> Any:
        out, backward = pair(inputs)
        return out, backward(given)

    forward, both = jax.jit(function), jax.jit(all_of_it)
    unread = jax.jit(lambda inputs, given: pair(inputs)[1](given))
    alone, saved = _backward_alone(pair, inputs)
    return {
        "forward": [lambda: forward(*inputs)],
        "backward": [lambda: alone(saved, cotangent), lambda: unread(inputs, cotangent)],
        "both": [lambda: both(inputs, cotangent)],
    }


def _forward_and_pullback(function: Function, added: bool) -> Function:
    """Return ``f(inputs)`` that gives the output, and the function from its gradient to the inputs'.

    The gradient of a branch is that of the stream that it is added to: it is not asked for, since a
    compiled program would write it twice.
    """

    def run(inputs: Any) -> Any:
        if not added:
            return jax.vjp(function, *inputs)
        x, branch, *weights = inputs
        return jax.vjp(lambda x, *weights: function(x, branch, *weights), x, *weights)

    return run


def _backward_alone(pair: Function, inputs: Sequence[jax.Array]) -> tuple[Function, Any]:
    """Return ``f(saved, gradient)``, compiled, and what the forward pass saved for it."""
    _, backward = jax.jit(pair)(inputs)
    saved, tree = jax.tree.flatten(backward)
    return jax.jit(lambda saved, given: jax.tree.unflatten(tree, saved)(given)), saved


def unfused_works(norm: Function, inputs: Sequence[jax.Array], cotangent: Any) -> Works:
    """Return the programs of an addition and of the norm of the sum, one after the other."""
    x, branch, *weights = inputs
    given, given_sum = cotangent
    add = jax.jit(jnp.add)
    plain = jax_works(norm, [add(x, branch), *weights], given)
    forward, both = jax.jit(norm), jax.jit(with_gradients(norm))

    def forwards() -> Any:
        total = add(x, branch)
        return forward(total, *weights), total

    def then_added(program: Callable[[], Any]) -> Any:
        first, *others = program()
        return add(first, given_sum), *others

    def all_of_it() -> Any:
        total = add(x, branch)
        out, (first, *others) = both([total, *weights], given)
        return (out, total), (add(first, given_sum), *others)

    backwards: list[Callable[[], Any]] = [partial(then_added, p) for p in plain["backward"]]
    return {"forward": [forwards], "backward": backwards, "both": [all_of_it]}
