"""Normalization as pure functions of arrays.

Shapes: ``x`` may have any rank; statistics run over ``axis`` (the features, by default the last).
``scale`` and ``bias`` have the shape of ``x`` on those axes, or any shape that broadcasts to ``x``.
The result has the dtype of ``x``; statistics and the affine map are computed in float32 at least.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from resnorm_jax.ops.norms.complex_numbers import standardize
from resnorm_jax.ops.norms.kernels import primitive, why
from resnorm_jax.ops.norms.kernels.form import PARAMETERS, Form, Operands
from resnorm_jax.ops.norms.operands import affine, check_norm, floating, inexact
from resnorm_jax.ops.statistics import (
    Axes,
    masked_mean,
    normalized_axes,
    statistics_dtype,
)

KERNELS = ("triton", "interpret")
IMPLEMENTATIONS = ("xla", *KERNELS)


def layer_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    axis: int | Axes = -1,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    mask: jax.Array | None = None,
    axis_name: str | None = None,
    axis_index_groups=None,
    implementation: str | None = None,
    dtype: Any = None,
) -> jax.Array:
    r"""Layer norm: ``(x - mean(x)) / sqrt(var(x) + epsilon) * scale + bias``, biased variance.

    $$ \mathrm{LN}(x) = g \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + b, \quad \mu = \frac{1}{D}
    \sum_i x_i, \quad \sigma^2 = \frac{1}{D} \sum_i (x_i - \mu)^2 $$

    Args:
      x: array of any rank, floating point (integers are taken as float32).
      scale: elementwise factor, or None.
      bias: elementwise offset, or None.
      axis: axis or axes of the statistics.
      epsilon: added to the variance, inside the root. 1e-6 as in flax; torch uses 1e-5.
      scale_offset: added to ``scale`` in the statistics' dtype; 1.0 is the zero-centred form.
      mask: boolean, broadcastable to ``x``; True where an element counts. Other elements, NaN
        included, change nothing and come out as zero.
      axis_name: name of a mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.
      implementation: None for the best there is, chosen where the program is lowered: the kernel on an
        NVIDIA GPU, XLA elsewhere and where `resnorm_jax.ops.norms.why_not` gives a reason. ``"xla"``
        for XLA's code; ``"triton"`` for the kernel or an error; ``"interpret"`` for the kernel
        carried out step by step in XLA's code on any device, slowly, to test it.
      dtype: dtype of the result, None for that of ``x``; the only cast after the affine map.

    Returns:
      Array of ``x``'s shape and dtype. A constant row gives ``bias``.

    Raises:
      ValueError: if ``axis`` is out of range, ``scale`` or ``bias`` does not fit, or the implementation
        cannot serve what is asked.

    Source: Ba, Kiros and Hinton 2016 (arXiv 1607.06450), eq. 3-4; epsilon as usual since.

    >>> import jax.numpy as jnp
    >>> print(layer_norm(jnp.array([1.0, 2, 3, 4, 5])).round(4))
    [-1.4142 -0.7071  0.      0.7071  1.4142]
    """
    form = _form(True, epsilon, scale_offset, implementation)
    over = _Over(axis, mask, axis_name, axis_index_groups)
    return _norm(form, over, x, scale, bias, dtype=dtype)[0]


def rms_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    *,
    axis: int | Axes = -1,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    mask: jax.Array | None = None,
    axis_name: str | None = None,
    axis_index_groups=None,
    implementation: str | None = None,
    dtype: Any = None,
) -> jax.Array:
    r"""RMS norm: ``x / sqrt(mean(x**2) + epsilon) * (scale + scale_offset)``.

    $$ \mathrm{RMS}(x) = (g + o) \frac{x}{\sqrt{\frac{1}{D} \sum_i x_i^2 + \epsilon}} $$

    Args:
      x: array of any rank, floating point.
      scale: elementwise factor, or None for none.
      axis: axis or axes of the statistics.
      epsilon: inside the root, as in T5, Llama and flax (the paper's code adds it outside).
      scale_offset: added to ``scale`` in the statistics' dtype; 1.0 is the zero-centred form.
      mask: as in `layer_norm`.
      axis_name: as in `layer_norm`.
      axis_index_groups: as in `layer_norm`.
      implementation: as in `layer_norm`.
      dtype: as in `layer_norm`.

    Returns:
      Array of ``x``'s shape and dtype. A zero row gives zeros, with finite gradients.

    Raises:
      ValueError: if ``axis`` is out of range, or ``scale`` does not fit.

    Source: Zhang and Sennrich 2019 (arXiv 1910.07467), eq. 4. The scale multiplies before the cast
    to the output dtype (Gemma's order; Llama casts first).

    >>> import jax.numpy as jnp
    >>> print(rms_norm(jnp.array([2.0, -2.0]), epsilon=0.0))
    [ 1. -1.]
    """
    form = _form(False, epsilon, scale_offset, implementation)
    over = _Over(axis, mask, axis_name, axis_index_groups)
    return _norm(form, over, x, scale, None, dtype=dtype)[0]


def std_layer_norm(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    *,
    axis: int | Axes = -1,
    epsilon: float = 1e-6,
) -> jax.Array:
    r"""Layer norm by the *unbiased* standard deviation: ``scale (x - mean) / (std + epsilon) + bias``.

    $$ g \frac{x - \mu}{s + \epsilon} + b, \quad s^2 = \frac{1}{D - 1} \sum_i (x_i - \mu)^2 $$

    Not the layer norm of Ba et al.: ``std`` divides by N - 1 and epsilon stands outside the root, so
    results are smaller by about ``sqrt((N - 1) / N)``. It is common in tutorial code.

    Args:
      x: array of any rank, floating point.
      scale: elementwise factor, or None.
      bias: elementwise offset, or None.
      axis: axis or axes of the statistics.
      epsilon: added to the standard deviation.

    Returns:
      Array of ``x``'s shape and dtype. A constant row, and a row of one element (where the unbiased
      deviation is not defined and torch gives NaN), gives ``bias`` with finite gradients.

    Raises:
      ValueError: if ``axis`` is out of range, or ``scale`` or ``bias`` does not fit.

    >>> import jax.numpy as jnp
    >>> print(std_layer_norm(jnp.array([1.0, 2, 3, 4, 5])).round(4))
    [-1.2649 -0.6325  0.      0.6325  1.2649]
    """
    x = floating(x)
    axes = normalized_axes(axis, x.ndim)
    wide = x.astype(statistics_dtype(x))
    centred = wide - masked_mean(wide, None, axes)
    centred = centred - masked_mean(centred, None, axes)
    count = max(1, _size(x, axes) - 1)
    variance = jnp.sum(centred * centred, axes, keepdims=True) / count
    # The root has no derivative at zero: take it of 1 there, and give 0.
    positive = variance > 0
    std = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
    return affine(centred / (std + epsilon), scale, bias, axes).astype(x.dtype)


def add_layer_norm(
    x: jax.Array,
    branch: jax.Array | None,
    scale: jax.Array | None,
    bias: jax.Array | None,
    *,
    axis: int | Axes = -1,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    mask: jax.Array | None = None,
    axis_name: str | None = None,
    axis_index_groups=None,
    implementation: str | None = None,
    dtype: Any = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Skip addition and layer norm in one pass: ``s = x + branch``; return ``(layer_norm(s), s)``.

    $$ s = x + f, \quad y = \mathrm{LN}(s) $$

    Args:
      x: stream.
      branch: what the sublayer adds, of ``x``'s shape. None adds nothing: the stream is ``x`` itself,
        and what its further use gives to the gradient is added inside the norm's backward pass.
      scale: as in `layer_norm`, and so all the others.
      bias: elementwise offset, or None.
      axis: axis or axes of the statistics.
      epsilon: added to the variance, inside the root.
      scale_offset: added to ``scale``.
      mask: True where an element counts.
      axis_name: name of a mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.
      implementation: as in `layer_norm`. The kernel writes the sum as its second output, and adds the
        sum's gradient inside the backward pass.
      dtype: dtype of the normalized sum, None for that of ``x``.

    Returns:
      The normalized sum and the sum, which has ``x``'s dtype.

    Raises:
      ValueError: as in `layer_norm`.
    """
    form = _form(True, epsilon, scale_offset, implementation)
    over = _Over(axis, mask, axis_name, axis_index_groups)
    return _norm(form, over, x, scale, bias, branch, dtype, stream=True)


def add_rms_norm(
    x: jax.Array,
    branch: jax.Array | None,
    scale: jax.Array | None,
    *,
    axis: int | Axes = -1,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    mask: jax.Array | None = None,
    axis_name: str | None = None,
    axis_index_groups=None,
    implementation: str | None = None,
    dtype: Any = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Skip addition and RMS norm in one pass: ``s = x + branch``; return ``(rms_norm(s), s)``.

    $$ s = x + f, \quad y = \mathrm{RMS}(s) $$

    Args:
      x: stream.
      branch: as in `add_layer_norm`.
      scale: as in `rms_norm`, and so all the others.
      axis: axis or axes of the statistics.
      epsilon: inside the root.
      scale_offset: added to ``scale``.
      mask: True where an element counts.
      axis_name: name of a mapped axis over which the statistics are shared too.
      axis_index_groups: groups of that axis' indices.
      implementation: as in `add_layer_norm`.
      dtype: dtype of the normalized sum, None for that of ``x``.

    Returns:
      The normalized sum and the sum, which has ``x``'s dtype.

    Raises:
      ValueError: as in `rms_norm`.
    """
    form = _form(False, epsilon, scale_offset, implementation)
    over = _Over(axis, mask, axis_name, axis_index_groups)
    return _norm(form, over, x, scale, None, branch, dtype, stream=True)


@dataclass(frozen=True)
class _Over:
    """What the statistics run over."""

    axis: int | Axes
    mask: jax.Array | None
    axis_name: str | None
    groups: Any


def _form(
    subtract_mean: bool, epsilon: float, scale_offset: float, implementation: str | None
) -> Form:
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation {implementation!r} is not one of {IMPLEMENTATIONS}")
    return Form(subtract_mean, float(epsilon), float(scale_offset), implementation)


def _norm(
    form: Form, over: _Over, x, scale, bias, branch=None, dtype: Any = None, stream: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Return the norm of ``x``, or of ``x + branch``, and what was normalized."""
    over = replace(
        over, mask=check_norm(x, over.mask, dtype, scale=scale, bias=bias, branch=branch)
    )
    x, scale, bias, branch = (a if a is None else jnp.asarray(a) for a in (x, scale, bias, branch))
    alike = branch is not None and (branch.shape, branch.dtype) == (x.shape, x.dtype)
    if branch is not None and not (alike and jnp.issubdtype(x.dtype, jnp.floating)):
        x, branch = x + branch, None
    total, x = x, inexact(x)
    form = replace(form, dtype=jnp.dtype(dtype or x.dtype))
    axes = normalized_axes(over.axis, x.ndim)
    reason = why.not_by_rows(x, scale, bias, axes, over.mask, over.axis_name)
    if reason is None:
        given = {"x": x, "branch": branch, "scale": scale, "bias": bias}
        y, found = _by_rows(form, axes, given, stream and total.dtype == x.dtype)
        return y, total if found is None else found
    if form.implementation in KERNELS:
        raise ValueError(f"implementation {form.implementation!r} cannot serve this norm: {reason}")
    if branch is not None:
        total = x = x + branch
    return _by_axes(form, over, axes, x, scale, bias), total


def _by_rows(
    form: Form, axes: Axes, given: Operands, stream: bool
) -> tuple[jax.Array, jax.Array | None]:
    """Fold the axes of the statistics into one, and go through the primitives."""
    shape, bias = given["x"].shape, given["bias"]
    rows = shape if len(axes) == 1 else (*shape[: axes[0]], -1)
    folded = {
        name: a if a is None else a.reshape((-1,) if name in PARAMETERS else rows)
        for name, a in given.items()
    }
    form = replace(form, bias_dtype=None if bias is None else bias.dtype)
    found = primitive.norm(form, folded, stream)
    y, total = found["y"], found.get("stream")
    return y.reshape(shape), total if total is None else total.reshape(shape)


def _by_axes(form: Form, over: _Over, axes: Axes, x, scale, bias) -> jax.Array:
    """Norm over any axes, with a mask or over a mapped axis."""
    mask, wide = over.mask, statistics_dtype(x)
    if mask is not None:
        x = jnp.where(mask, x, 0)
    normed, _ = standardize(
        x.astype(wide), mask, axes, form.epsilon, form.subtract_mean, over.axis_name, over.groups
    )
    if scale is not None and form.scale_offset:  # 1 + g loses digits in bfloat16
        scale = scale.astype(wide) + form.scale_offset
    out = affine(normed, scale, bias, axes)
    if mask is not None and bias is not None:
        out = jnp.where(mask, out, 0)
    return out.astype(form.dtype)


def _size(x: jax.Array, axes: Axes) -> int:
    size = 1
    for a in axes:
        size *= x.shape[a]
    return size
