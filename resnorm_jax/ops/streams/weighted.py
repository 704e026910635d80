"""Streams of one array whose weights are learned, feature by feature."""

import jax
import jax.numpy as jnp

from resnorm_jax.ops.residual import residual
from resnorm_jax.ops.statistics import statistics_dtype
from resnorm_jax.ops.streams.single import vector
from resnorm_jax.ops.streams.spec import Site, Stream, StreamParameter

STEP = 0.05  # nGPT's alpha at first: model.py of NVIDIA/ngpt


def _vector_skip(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    """``w x + f``, in float32 at least and cast once."""
    wide = statistics_dtype(x)
    w = site.parameters["skip_scale"].astype(wide) * site.skip_scale
    y = y.astype(wide)
    return residual(x.astype(wide), y, skip_scale=w, branch_scale=site.branch_scale).astype(x.dtype)


def _step_towards(x: jax.Array, y: jax.Array, site: Site) -> jax.Array:
    """``x + |a| (f - x)``, ``a`` stored as ``a / (0.05 sqrt(D))``."""
    wide = statistics_dtype(x)
    step = jnp.abs(site.parameters["gate"].astype(wide)) * (STEP * site.width**0.5)
    x32 = x.astype(wide)
    return (x32 + step * (y.astype(wide) - x32)).astype(x.dtype)


def _stored_step(key: jax.Array, shape: tuple[int, ...], dtype, site: Site) -> jax.Array:
    return jnp.full(shape, site.width**-0.5, dtype)


ROWS = (
    Stream(
        "vector_skip",
        "w a x + b f, w [D] per sublayer, 1 at first",
        "Liu et al. 2020 (arXiv 2004.08249); LiyuanLucasLiu/Transformer-Clinic",
        _vector_skip,
        parameters=(StreamParameter("skip_scale", vector, 1.0),),
    ),
    Stream(
        "step_towards",
        "x + |w| (f - x), w [D] per sublayer, 0.05 at first (the scales a and b are not read)",
        "Loshchilov et al. 2024 (arXiv 2410.01131); model.py of NVIDIA/ngpt",
        _step_towards,
        parameters=(StreamParameter("gate", vector, _stored_step),),
    ),
)
