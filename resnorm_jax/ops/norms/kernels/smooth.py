"""The three operations of a norm as functions that may be differentiated in whatever is given.

They take the numbers of a row anew from ``x``, through the derivative rule of `standardize`; what was
kept of the row is not read, so that no derivative goes, or gets lost, by way of it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.norms.kernels import reference
from resnorm_jax.ops.norms.kernels.form import Form, Names, Operands
from resnorm_jax.ops.statistics import standardize, statistics_dtype

LINEAR = {"dx": "x", "dscale": "scale", "dbias": "bias"}


def norm(form: Form, operands: Operands) -> jax.Array:
    """Return the norm of ``x``."""
    x = operands["x"]
    wide, axes = x.astype(statistics_dtype(x)), (x.ndim - 1,)
    y, _ = standardize(wide, None, axes, form.epsilon, form.subtract_mean, None, None)
    return reference.affine(form, y, operands)


def forward(form: Form, outs: Names, operands: Operands) -> Operands:
    """As `reference.forward`; the numbers of each row count as constants."""
    found = reference.forward(form, outs, operands)
    kept = {name: lax.stop_gradient(found[name]) for name in form.statistics}
    x = operands["x"] + operands["branch"] if "branch" in operands else operands["x"]
    return {"y": norm(form, {**operands, "x": x}), "stream": x, **kept}


def tangent(form: Form, outs: Names, operands: Operands) -> Operands:
    """As `reference.tangent`."""
    moved = {of: operands[d] for d, of in LINEAR.items() if d in operands}
    at = {name: operands.get(name, d) for name, d in moved.items()}  # a bias may be anything
    _, dy = jax.jvp(_norm_at(form, operands), (at,), (moved,))
    return {"dy": dy, "dstream": operands.get("dx")}


def backward(form: Form, outs: Names, operands: Operands) -> Operands:
    """As `reference.backward`."""
    at = {LINEAR[d]: operands.get(LINEAR[d]) for d in outs}
    if "bias" in at:
        at["bias"] = jnp.zeros(operands["x"].shape[-1:], form.bias_dtype)
    (moved,) = jax.vjp(_norm_at(form, operands), at)[1](operands["g"])
    if "stream_g" in operands and "x" in moved:
        moved["x"] = moved["x"] + operands["stream_g"]
    return {d: moved[LINEAR[d]] for d in outs}


def _norm_at(form: Form, operands: Operands) -> Callable[[Operands], jax.Array]:
    """Return the norm as a function of some of its operands."""
    return lambda at: norm(form, {**operands, **at})
