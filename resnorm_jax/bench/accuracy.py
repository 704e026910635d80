"""Error of layer norm against float64 when the mean is far from zero, beside the peers."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnorm_jax.bench import torch_peer
from resnorm_jax.bench.norm_speed import OURS, TORCH, Norm, jax_norms

EPSILON = 1e-6
MEANS = (0.0, 1e1, 1e2, 1e3, 1e4, 1e5)
SEEDS = range(5)
DTYPES = ("float32", "bfloat16")
ROWS, WIDTH = 256, 512


def oracle(x: np.ndarray) -> np.ndarray:
    """Layer norm in float64."""
    x = x.astype(np.float64)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)


def peers(dtype: Any) -> dict[str, Norm]:
    """Return layer norms by name, ours first, each a function of ``(x, scale, bias)``."""

    def standardize(**options: Any) -> Norm:
        # As the others in float32 up to the last cast: left alone it rounds a bfloat16 mean.
        def norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
            out = jax.nn.standardize(x.astype(jnp.float32), epsilon=EPSILON, **options)
            return (out * scale + bias).astype(x.dtype)

        return norm

    found = {**jax_norms("layer", dtype), "jax.nn": standardize()}
    if "algorithm" in inspect.signature(jax.nn.standardize).parameters:  # newer jax
        found["jax.nn stable"] = standardize(algorithm="stable")
    return found


def accuracy() -> list[dict[str, Any]]:
    """Return a row for each dtype and mean: ``errors``, the largest by peer, ``best``, ``least``.

    ``best`` names the peer of the least error and those who differ from it by less than half of
    ``resolution``, the spacing of the dtype's numbers at the largest output: they are equal but for
    the last rounding. ``least`` says whether ours is the least, without such leave.

    Errors are the largest of several draws (`SEEDS`). Rows have unit standard deviation before they
    are rounded to the dtype; the oracle gets the rounded ones, so that only the norm's own error
    counts.
    """
    reason = torch_peer.unavailable()
    rows = []
    for dtype_name in DTYPES:
        norms: dict[str, Norm] = {n: jax.jit(f) for n, f in peers(jnp.dtype(dtype_name)).items()}
        for mean in MEANS:
            errors, largest = _errors(norms, dtype_name, mean, with_torch=reason is None)
            resolution = float(jnp.finfo(dtype_name).eps) * largest
            bound = min(errors.values()) + resolution / 2
            rows.append(
                {
                    "dtype": dtype_name,
                    "mean": mean,
                    "draws": len(SEEDS),
                    "errors": errors,
                    "resolution": resolution,
                    "best": [name for name, error in errors.items() if error <= bound],
                    "least": errors[OURS] <= min(errors.values()),
                    "skipped": {} if reason is None else {TORCH: reason},
                }
            )
    return rows


def _errors(
    norms: dict[str, Norm], dtype_name: str, mean: float, with_torch: bool
) -> tuple[dict[str, float], float]:
    """Return each norm's largest error over all draws, and the largest output."""
    errors: dict[str, float] = {}
    largest = 0.0
    scale, bias = jnp.ones(WIDTH), jnp.zeros(WIDTH)
    for seed in SEEDS:
        noise = np.random.default_rng(seed).standard_normal((ROWS, WIDTH))
        x = jnp.asarray(noise + mean, jnp.dtype(dtype_name))
        exact = np.asarray(x, np.float32)
        expected = oracle(exact)
        outputs = {
            name: np.asarray(norm(x, scale, bias), np.float64) for name, norm in norms.items()
        }
        if with_torch:
            outputs[TORCH] = torch_peer.normalized(exact, dtype_name)
        largest = max(largest, float(np.abs(expected).max()))
        for name, out in outputs.items():
            errors[name] = max(errors.get(name, 0.0), float(np.abs(out - expected).max()))
    return errors, largest
