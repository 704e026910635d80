"""Norms of JAX that are compared, as functions of arrays, and random input for them."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.ops.norms import layer_norm, rms_norm

OURS, FLAX, FLAX_TWO_PASS, TORCH = "ours", "flax", "flax two-pass", "torch"
SHAPES = ((32, 128, 256), (32, 128, 64), (8, 512, 1024))
Norm = Callable[..., Any]


def jax_norms(kind: str, dtype: Any) -> dict[str, Norm]:
    """Return peers by name, each a function of ``(x, scale, bias)``, or ``(x, scale)`` for RMS.

    ``dtype`` is that of the result, so that all do the same: by default flax would answer bfloat16
    in float32.
    """
    if kind == "rms":
        theirs = nn.RMSNorm(dtype=dtype)
        return {OURS: rms_norm, FLAX: lambda x, s: theirs.apply({"params": {"scale": s}}, x)}

    def flax_norm(fast: bool) -> Norm:
        module = nn.LayerNorm(dtype=dtype, use_fast_variance=fast)
        return lambda x, s, b: module.apply({"params": {"scale": s, "bias": b}}, x)

    return {OURS: layer_norm, FLAX: flax_norm(True), FLAX_TWO_PASS: flax_norm(False)}


def with_gradients(norm: Norm) -> Callable[..., Any]:
    """Return ``f(inputs, cotangent)`` that gives the norm's output and the gradients of inputs."""

    def run(inputs: Sequence[jax.Array], cotangent: Any) -> Any:
        out, backward = jax.vjp(norm, *inputs)
        return out, backward(cotangent)

    return run


def random_case(kind: str, shape: Sequence[int], dtype: Any) -> tuple[list[jax.Array], jax.Array]:
    """Return inputs (``x``, scale and, but for RMS, bias) and a cotangent of ``x``'s shape."""
    rng = np.random.default_rng(0)
    x, cotangent = (jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    count = 1 if kind == "rms" else 2
    weights = [jnp.asarray(rng.standard_normal(shape[-1]), jnp.float32) for _ in range(count)]
    return [x, *weights], cotangent
