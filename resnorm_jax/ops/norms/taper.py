"""A norm that is taken out while training: RMS norm at first, a fixed scaling at last."""

import jax
import jax.numpy as jnp

from resnorm_jax.arguments import parameter
from resnorm_jax.ops.norms.core import rms_norm
from resnorm_jax.ops.norms.operands import affine, floating
from resnorm_jax.ops.statistics import statistics_dtype


def taper_norm(
    x: jax.Array,
    scale: jax.Array,
    fixed_scale: jax.Array,
    constant: jax.Array | float,
    *,
    gate: jax.Array | float,
    epsilon: float = 1e-6,
) -> jax.Array:
    """TaperNorm: ``gate * RMS(x) * scale + (1 - gate) * constant * x * fixed_scale``.

    Args:
      x: ``[..., D]``, floating point.
      scale: ``[D]``, of the RMS norm.
      fixed_scale: ``[D]``, of the branch without statistics; equal to ``scale`` when the taper starts.
      constant: scalar: see `taper_constant`.
      gate: scalar in [0, 1]: see `taper_gate`. At 0 the norm can be folded into the next projection.
      epsilon: inside the root.

    Returns:
      Array of ``x``'s shape and dtype.

    Source: Kanavalau et al. 2026 (arXiv 2602.10408), the form for RMS norm; checked against its
    abstract and two secondary texts that agree. The paper keeps the final norm as it is.

    >>> import jax.numpy as jnp
    >>> x, ones = jnp.array([2.0, -2.0]), jnp.ones(2)
    >>> print(taper_norm(x, ones, ones, 3.0, gate=0.5, epsilon=0.0))
    [ 3.5 -3.5]
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    constant = parameter("constant", constant, wide)
    gate = parameter("gate", gate, wide)
    fixed = constant * affine(wide, fixed_scale, None, (x.ndim - 1,), ("fixed_scale", ""))
    return (gate * rms_norm(wide, scale, epsilon=epsilon) + (1 - gate) * fixed).astype(x.dtype)


def taper_gate(step: jax.Array | float, start: float, end: float) -> jax.Array:
    """The gate at a step: 1 up to ``start``, half a cosine down to 0 at ``end``, 0 from there on.

    Args:
      step: scalar.
      start: last step of the plain norm.
      end: first step without it; greater than ``start``.

    Returns:
      float32 scalar.

    Raises:
      ValueError: if ``end`` does not lie after ``start``.

    Source: as `taper_norm`.

    >>> [round(float(taper_gate(step, 10, 20)), 3) for step in (5, 15, 25)]
    [1.0, 0.5, 0.0]
    """
    if end <= start:
        raise ValueError(f"the taper ends at {end}, and starts at {start}")
    part = jnp.clip((jnp.asarray(step, jnp.float32) - start) / (end - start), 0, 1)
    return 0.5 * (1 + jnp.cos(jnp.pi * part))


def taper_constant(
    x: jax.Array, scale: jax.Array, *, epsilon: float = 1e-6
) -> tuple[jax.Array, jax.Array]:
    """The two means whose ratio is the best constant: ``|x g|^2 / rms(x)`` and ``|x g|^2``.

    Their ratio is the c that brings ``c x g`` nearest to ``x g / rms(x)`` in squares. Keep a moving
    average of each while the gate is 1, and divide once.

    Args:
      x: ``[..., D]``, floating point.
      scale: ``[D]``, g.
      epsilon: inside the root.

    Returns:
      Two scalars, of the statistics' dtype.

    Source: as `taper_norm`.

    >>> import jax.numpy as jnp
    >>> above, below = taper_constant(jnp.full((3, 4), 2.0), jnp.ones(4), epsilon=0.0)
    >>> float(above / below)
    0.5
    """
    x = floating(x)
    wide = x.astype(statistics_dtype(x))
    square = jnp.sum(affine(wide, scale, None, (x.ndim - 1,)) ** 2, axis=-1)
    rms = jnp.sqrt(jnp.mean(wide * wide, axis=-1) + jnp.asarray(epsilon, wide.dtype))
    return jnp.mean(square / rms), jnp.mean(square)
