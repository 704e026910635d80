"""Error of layer norm against float64 when the mean is far from zero, beside the peers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.bench import torch_peer
from resnorm_jax.bench.norm_speed import TORCH, jax_norms

EPSILON = 1e-6
MEANS = (0.0, 1e2, 1e3, 1e4)
DTYPES = ("float32", "bfloat16")
ROWS, WIDTH = 256, 512


def oracle(x: np.ndarray) -> np.ndarray:
    """Layer norm in float64."""
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)


def accuracy() -> list[dict[str, Any]]:
    """Return a row for each dtype and mean: ``errors``, the largest by peer, and ``best``.

    ``best`` names the peer of the least error and those who differ from it by less than half of
    ``resolution``, the spacing of the dtype's numbers at the largest output: they are equal but for
    the last rounding.

    Rows have unit standard deviation before they are rounded to the dtype; the oracle gets the
    rounded ones, so that only the norm's own error counts.
    """
    noise = np.random.default_rng(0).standard_normal((ROWS, WIDTH))
    reason = torch_peer.unavailable()
    rows = []
    for dtype_name in DTYPES:
        norms = {n: jax.jit(f) for n, f in jax_norms("layer", jnp.dtype(dtype_name)).items()}
        for mean in MEANS:
            x = jnp.asarray(noise + mean, jnp.dtype(dtype_name))
            exact = np.asarray(x, np.float32)
            expected = oracle(exact)
            outputs = {name: _jax_output(norm, x) for name, norm in norms.items()}
            if reason is None:
                outputs[TORCH] = torch_peer.normalized(exact, dtype_name)
            errors = {n: float(np.abs(out - expected).max()) for n, out in outputs.items()}
            resolution = float(jnp.finfo(x.dtype).eps * np.abs(expected).max())
            bound = min(errors.values()) + resolution / 2
            rows.append(
                {
                    "dtype": dtype_name,
                    "mean": mean,
                    "errors": errors,
                    "resolution": resolution,
                    "best": [name for name, error in errors.items() if error <= bound],
                    "skipped": {} if reason is None else {TORCH: reason},
                }
            )
    return rows


def _jax_output(norm: Callable[..., jax.Array], x: jax.Array) -> np.ndarray:
    scale, bias = jnp.ones(x.shape[-1]), jnp.zeros(x.shape[-1])
    return np.asarray(norm(x, scale, bias), np.float64)
