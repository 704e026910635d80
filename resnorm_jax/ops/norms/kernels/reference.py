"""Norms over the last axis for XLA: forward, tangent and backward, each from and to plain arrays.

With ``z = x - mean``, ``r = 1 / sqrt(var + epsilon)``, ``s = scale + scale_offset``, D features::

    forward    y  = z r s + bias
    tangent    dy = (dx - mean(dx) - z r^2 mean(z dx)) r s + z r dscale + dbias
    backward   dx = (g s - mean(g s) - z r^2 mean(z g s)) r + stream_g
               dscale = sum_rows(z r g),  dbias = sum_rows(g)

An RMS norm has ``z = x`` and no ``mean``. Statistics are those of `resnorm_jax.ops.statistics`: the
mean is kept in two parts, ``z = (x - mean) - correction``. On a CPU weighted sums over rows and
columns are products with vectors, for which XLA has fast code there; elsewhere plain sums.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from resnorm_jax.ops.layout import laid_over_devices
from resnorm_jax.ops.norms.kernels.form import STATISTICS, Form, Names, Operands
from resnorm_jax.ops.statistics import moments, normalized, statistics_dtype


@dataclass(frozen=True)
class Sums:
    """How sums of an array times a vector are taken.

    Attributes:
      rows: ``(t, w) -> sum_j t[..., j] w[j]``, kept as size 1.
      columns: ``(w, t) -> sum over rows of w t``, for ``w`` of shape ``[..., 1]``.
      keep: what is done with arrays that are used more than once.
    """

    rows: Callable[[jax.Array, jax.Array], jax.Array]
    columns: Callable[[jax.Array, jax.Array], jax.Array]
    keep: Callable[[Any], Any]


def _leading(t: jax.Array) -> tuple[int, ...]:
    return tuple(range(t.ndim - 1))


def _weighted_rows(t: jax.Array, w: jax.Array) -> jax.Array:
    if laid_over_devices(t):
        return PLAIN.rows(t, w)
    return jnp.matmul(t, w, precision=lax.Precision.HIGHEST)[..., None]


def _weighted_columns(w: jax.Array, t: jax.Array) -> jax.Array:
    if laid_over_devices(t):
        return PLAIN.columns(w, t)
    axes, w = _leading(t), lax.squeeze(w, (w.ndim - 1,))
    return lax.dot_general(w, t, ((axes, axes), ((), ())), precision=lax.Precision.HIGHEST)


PLAIN = Sums(
    rows=lambda t, w: jnp.sum(t * _row(w, t), -1, keepdims=True),
    columns=lambda w, t: jnp.sum(w * t, _leading(t)),
    keep=lambda arrays: arrays,
)
# Without the barriers XLA computes whole arrays again for every product that reads them.
PRODUCTS = Sums(_weighted_rows, _weighted_columns, lax.optimization_barrier)


def forward(form: Form, outs: Names, operands: Operands, sums: Sums = PLAIN) -> Operands:
    """Return ``y``, the numbers of each row, and ``stream``, ``x + branch``, if there is a branch."""
    x, branch = operands["x"], operands.get("branch")
    if branch is not None:
        x = x + branch
    wide = x.astype(statistics_dtype(x))
    found = moments(wide, _mean, form.subtract_mean, form.epsilon, sums.keep)
    mean, correction, inverse, rest = sums.keep(found)
    y = affine(form, normalized(wide, mean, correction, inverse, rest), operands)
    numbers = dict(zip(STATISTICS, (mean, correction, inverse), strict=True))
    kept = {name: lax.squeeze(numbers[name], (x.ndim - 1,)) for name in form.statistics}
    return {"y": y, "stream": x, **kept}


def tangent(form: Form, outs: Names, operands: Operands, sums: Sums = PLAIN) -> Operands:
    """Return ``dy``, linear in what there is of ``dx``, ``dscale`` and ``dbias``; and ``dstream``."""
    z, r = _centred(operands)
    total = jnp.zeros_like(z)
    if "dx" in operands:
        dx = operands["dx"].astype(z.dtype)
        inner = dx - z * (r * r * _mean(z * dx))
        if form.subtract_mean:
            inner = inner - _mean(dx)
        total = inner * r * _row(_scale(form, operands, z), z)
    if "dscale" in operands:
        total = total + z * r * _row(operands["dscale"].astype(z.dtype), z)
    if "dbias" in operands:
        total = total + _row(operands["dbias"].astype(z.dtype), z)
    return {"dy": total.astype(form.dtype), "dstream": operands.get("dx")}


def backward(form: Form, outs: Names, operands: Operands, sums: Sums = PLAIN) -> Operands:
    """Return those of ``dx``, ``dscale`` and ``dbias`` that ``outs`` names."""
    z, r = _centred(operands)
    g = operands["g"].astype(z.dtype)
    product = sums.keep(g * z)
    found = {}
    if "dx" in outs:
        scale = _scale(form, operands, z)
        along = r * r * sums.rows(product, scale) / z.shape[-1]
        mean = sums.rows(g, scale) / z.shape[-1] if form.subtract_mean else None
        along, mean, r = sums.keep((along, mean, r))
        dx = g * _row(scale, z) - z * along
        if mean is not None:
            dx = dx - mean
        dx = dx * r
        if "stream_g" in operands:
            dx = dx + operands["stream_g"].astype(z.dtype)
        found["dx"] = dx.astype(operands["x"].dtype)
    if "dscale" in outs:
        found["dscale"] = sums.columns(r, product).astype(operands["scale"].dtype)
    if "dbias" in outs:
        found["dbias"] = jnp.sum(g, _leading(g)).astype(form.bias_dtype)
    return found


def _centred(operands: Operands) -> tuple[jax.Array, jax.Array]:
    """Return ``z`` and ``r``, in the dtype of the statistics."""
    r = operands["inverse"][..., None]
    z = operands["x"].astype(r.dtype)
    if operands.get("mean") is not None:
        z = (z - operands["mean"][..., None]) - operands["correction"][..., None]
    return z, r


def _scale(form: Form, operands: Operands, like: jax.Array) -> jax.Array:
    scale = operands.get("scale")
    if scale is None:
        return jnp.ones(like.shape[-1:], like.dtype)
    scale = scale.astype(like.dtype)
    return scale + form.scale_offset if form.scale_offset else scale


def affine(form: Form, normed: jax.Array, operands: Operands) -> jax.Array:
    """Return the norm of ``normed`` rows: scaled, shifted and in the dtype of the result."""
    y = normed * _row(_scale(form, operands, normed), normed)
    if operands.get("bias") is not None:
        y = y + _row(operands["bias"].astype(normed.dtype), normed)
    return y.astype(form.dtype)


def _row(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Lay ``[D]`` along the last axis of ``like``."""
    return lax.expand_dims(vector, range(like.ndim - 1))


def _mean(t: jax.Array) -> jax.Array:
    return jnp.mean(t, -1, keepdims=True)
